"""Whether a model's weights are still those that cached keys and values were computed with.

A model that somebody else holds may be trained, loaded or averaged between two requests. What the cache says then
belongs to another model. Two looks, both without a copy of the weights:

    glance   before every step: where the arrays are, and PyTorch's own count of changes in place (NumPy keeps none:
             a sample of the values instead)
    digest   before the first step after a pause: sums of all rows and columns, read as integers. It also sees what
             goes past PyTorch's count (`parameter.data.mul_`, a NumPy view). Costs about as much as one decode step

Tests: tests/vol3/test_weight_changes.py.
"""

import zlib
from collections.abc import Callable, Hashable, Iterable

import numpy as np

SAMPLE_STRIDE = 1021  # elements


class WeightWatch:
    """glance, digest: functions of the weights as they are now. digest None: nobody else holds them."""

    def __init__(self, glance: Callable[[], Hashable], digest: Callable[[], int] | None):
        self._glance = glance
        self._digest = digest or (lambda: 0)
        self._seen: tuple[Hashable, int | None] = (glance(), self._digest())

    def changed(self, thorough: bool) -> bool:
        """Whether the weights are other ones than at the last call. thorough: take the digest too."""
        glance, digest = self._seen
        now = self._glance()
        if thorough:
            self._seen = (now, self._digest())
            return self._seen != (glance, digest)
        self._seen = (now, digest if now == glance else None)
        return now != glance


def digest_of(arrays: Iterable[np.ndarray]) -> int:
    """A checksum of all arrays' bytes: of the sums of their rows, and of their columns. It sees values that move."""
    state = 0
    for array in arrays:
        words = _as_words(array)  # (R,C)
        for axis in (0, 1):
            state = zlib.crc32(words.sum(axis, dtype=np.uint64).tobytes(), state)
    return state


def sample_of(arrays: Iterable[np.ndarray]) -> int:
    """A checksum of every thousandth value or so: training changes nearly all of them."""
    state = 0
    for array in arrays:
        state = zlib.crc32(np.ascontiguousarray(array.reshape(-1)[::SAMPLE_STRIDE]).tobytes(), state)
    return state


def _as_words(array: np.ndarray) -> np.ndarray:
    """An array of numbers as rows of unsigned integers, as wide as its rows' length in bytes allows."""
    rows = np.ascontiguousarray(array).reshape(array.shape[0] if array.ndim > 1 else 1, -1)
    size = rows.shape[1] * rows.itemsize
    width = next(width for width in (8, 4, 2, 1) if size % width == 0)
    return rows.view(f"u{width}")
