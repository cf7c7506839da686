"""The roofline of decoding: a step cannot be faster than memory delivers the bytes that it reads.

    seconds per token >= bytes per step / (tokens per step * memory bandwidth)

Not here: running a model (benchmark.py). Tests: tests/vol3/test_roofline.py.
"""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit


@njit(nogil=True)
def _sum(words: np.ndarray) -> int:
    total = 0
    for i in range(len(words)):
        total += words[i]
    return total


def read_bandwidth(threads: int, size: int = 384 * 2**20, repeats: int = 5) -> float:
    """Memory bandwidth in bytes/s with this many threads: the best of several passes.

    The threads sum an array of `size` bytes, far more than the caches hold, each a contiguous part of it.
    """
    words = np.ones(size // 8, np.int64)
    parts = np.array_split(words, threads)
    _sum(words[:1])  # compiles
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            began = time.perf_counter()
            found = sum(pool.map(_sum, parts))
            best = max(best, words.nbytes / (time.perf_counter() - began))
            assert found == len(words), "every word was read"
    return best
