"""RoPE: the pair (i, i + K/2) of a head is rotated by the angle of pair i at its position.

    y_i = x_i cos - x_{i+K/2} sin,   y_{i+K/2} = x_{i+K/2} cos + x_i sin       Su et al. 2021, arXiv 2104.09864, eq. 34

Not here: the angles (core/rope.py). Tests: tests/vol3/cpu/kernels/test_small.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, store


def rotate_plain(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    """x (N,K), cos and sin (N,K/2) -> (N,K): the reference."""
    low, high = np.split(x, 2, axis=1)
    return np.concatenate([low * cos - high * sin, high * cos + low * sin], axis=1)


@kernel
def rotate_head(x, n, start, head_dim, cos, sin):
    """The head that begins at column `start` of row n of x (N,C), in place. cos, sin (N,K/2)."""
    noinline()
    half = head_dim // 2
    whole = half - half % 16
    for i in range(0, whole, 16):
        low, high = load(x, n, start + i), load(x, n, start + half + i)
        c, s = load(cos, n, i), load(sin, n, i)
        store(x, n, start + i, low * c - high * s)
        store(x, n, start + half + i, high * c + low * s)
    for i in range(whole, half):  # heads smaller than 32
        low, high = x[n, start + i], x[n, start + half + i]
        x[n, start + i] = low * cos[n, i] - high * sin[n, i]
        x[n, start + half + i] = high * cos[n, i] + low * sin[n, i]
