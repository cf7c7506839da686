"""Arrays that begin on a cache line: what kernels read is 64-byte aligned.

Tests: tests/vol3/cpu/kernels/test_pack.py.
"""

import numpy as np

CACHE_LINE = 64  # bytes


def aligned(size: int, dtype: type = np.uint8) -> np.ndarray:
    """`size` zeros of a dtype; the operating system allocates the memory when it is first touched."""
    bytes_ = np.zeros(size * np.dtype(dtype).itemsize + CACHE_LINE, np.uint8)
    start = -bytes_.ctypes.data % CACHE_LINE
    return bytes_[start : start + size * np.dtype(dtype).itemsize].view(dtype)
