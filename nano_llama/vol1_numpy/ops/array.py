"""The types that every op's signature uses, the legend of shapes, and the tiles of the fast forms.

Not here: any mathematics. Tests: tests/vol1/test_ops_fast.py.

    B batch · T time (queries) · S time (keys) · D model width · H query heads · G key/value heads · R = H / G
    K head dim · F MLP width · V vocabulary · N rows, however many axes they come from
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Cache: TypeAlias = tuple[Any, ...]  # what a forward keeps for its backward; nobody else looks inside

TILE = 1 << 16  # numbers that a fast form works on at once: 256 KiB in float32, so that two such stay in a core's cache


def row_tiles(num_rows: int, width: int) -> Iterator[slice]:
    """The rows of a (num_rows, width) array in parts of about TILE numbers."""
    step = max(1, TILE // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
