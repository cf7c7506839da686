"""SwiGLU of a row, in the forms that the next product wants of it.

    y = silu(gate) * up,  silu(g) = g / (1 + e^-g)        Shazeer 2020, arXiv 2002.05202, eq. 6

The rows of gate and up are packed in turns, 16 of one and 16 of the other, so that whoever computed them has both.
Not here: the products (linear.py). Tests: tests/vol3/cpu/kernels/test_small.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.activations import put_group
from nano_llama.vol3_engine.cpu.simd.intrinsics import exp, load, splat


def swiglu_plain(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The plain twin."""
    return gate * up / (1 + np.exp(-gate))


def in_turns(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The rows of two matrices (F,D) in turns of 16, padded with zeros to whole turns of 32 -> (2F + padding, D)."""
    size = -(-len(gate) // 32) * 32
    both = np.zeros((2, size, gate.shape[1]), gate.dtype)
    both[0, : len(gate)], both[1, : len(up)] = gate, up
    return both.reshape(2, size // 16, 16, -1).swapaxes(0, 1).reshape(2 * size, -1)


@kernel
def swiglu(gate_up, n, first, last, out, form):
    """Groups first ... last-1 of 32 columns of row n into `out` (Activations). gate_up (N,C) begins with `first`."""
    for group in range(first, last):
        k = 64 * (group - first)
        low = silu_times(load(gate_up, n, k), load(gate_up, n, k + 16))
        high = silu_times(load(gate_up, n, k + 32), load(gate_up, n, k + 48))
        put_group(low, high, n, group, out, form)


@kernel
def silu_times(gate, up):
    one, zero = splat(np.float32(1)), splat(np.float32(0))
    return gate * up / (one + exp(zero - gate))
