"""The types that every op's signature uses, the shape legend, and the tiles of the fast forms.

Tests: tests/vol1/test_ops_fast.py.

    B batch · T time (queries) · S time (keys) · D model width · H query heads · G key/value heads · R = H / G
    K head dim · F MLP width · V vocabulary · N rows, however many axes they come from
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Cache: TypeAlias = tuple[Any, ...]  # what a forward saves for its backward; not a KV cache

ELEMENTS_PER_TILE = 1 << 16  # what a fast form works on at once: 256 KiB in float32, so that two fit into a core's L2


def row_tiles(num_rows: int, width: int) -> Iterator[slice]:
    """The rows of a (num_rows, width) array in parts of about ELEMENTS_PER_TILE numbers."""
    step = max(1, ELEMENTS_PER_TILE // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))
