"""The types that every op's signature uses, and the legend of shapes.

Not here: any mathematics. Tests: none of its own; mypy reads it.

    B batch · T time (queries) · S time (keys) · D model width · H query heads · G key/value heads · R = H / G
    K head dim · F MLP width · V vocabulary · N rows, however many axes they come from
"""

from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
Cache: TypeAlias = tuple[Any, ...]  # what a forward keeps for its backward; nobody else looks inside
