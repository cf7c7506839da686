"""The roofline of decoding: a token cannot come faster than its bytes come from memory.

Not here: running a model (benchmark.py). Tests: tests/vol3/test_roofline.py.

    seconds a token >= bytes that the step reads / (tokens of the step * bytes a second that the memory gives)
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit


@njit(nogil=True)
def _total(words: np.ndarray) -> int:
    total = 0
    for i in range(len(words)):
        total += words[i]
    return total


def read_bandwidth(threads: int, size: int = 384 * 2**20, repeats: int = 5) -> float:
    """Bytes a second with which so many threads read memory together: the best of some passes.

    Each thread adds up a part of its own of `size` bytes, far more than a core's caches hold, in order.
    """
    words = np.ones(size // 8, np.int64)
    parts = np.array_split(words, threads)
    _total(words[:1])  # compiles
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            began = time.perf_counter()
            found = sum(pool.map(_total, parts))
            best = max(best, words.nbytes / (time.perf_counter() - began))
            assert found == len(words), "every word was read"
    return best
