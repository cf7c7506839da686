"""RMSNorm of a row, in the forms that the next matrix reads.

    y = x * r * weight,  r = 1 / sqrt(mean(x^2) + eps)        Zhang and Sennrich 2019, arXiv 1910.07467, eq. 4

Tests: tests/vol3/cpu/kernels/test_small.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.activations import write_group
from nano_llama.vol3_engine.cpu.kernels.kinds import GROUP
from nano_llama.vol3_engine.cpu.simd.intrinsics import fma, load, reduce_add, splat


def rmsnorm_plain(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    """(N,D) -> (N,D): the reference."""
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + np.float32(eps))
    return x * r * weight


@kernel
def rmsnorm(x, n, weight, size, eps, out, form):
    """Row n of x (N,C) into row n of `out` (Activations), in every form of `form`.

    weight (C,), size = D; C is D padded with zeros to whole groups of 32.
    """
    groups = (size + GROUP - 1) // GROUP
    squares = splat(np.float32(0))
    for group in range(groups):
        low, high = load(x, n, GROUP * group), load(x, n, GROUP * group + 16)
        squares = fma(low, low, fma(high, high, squares))
    r = splat(np.float32(1) / np.sqrt(reduce_add(squares) / np.float32(size) + np.float32(eps)))
    for group in range(groups):
        k = GROUP * group
        low, high = load(x, n, k) * r * load(weight, k), load(x, n, k + 16) * r * load(weight, k + 16)
        write_group(low, high, n, group, out, form)
