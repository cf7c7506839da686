"""SwiGLU of a row, in the forms that the next matrix reads.

    y = silu(gate) * up,  silu(g) = g / (1 + e^-g)        Shazeer 2020, arXiv 2002.05202, eq. 6

Rows of gate and up alternate by 16 in their packed matrix, so that the thread that computed one has the other.
Tests: tests/vol3/cpu/kernels/test_small.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.activations import write_group
from nano_llama.vol3_engine.cpu.simd.intrinsics import exp, load, splat


def swiglu_plain(gate: np.ndarray, up: np.ndarray) -> np.ndarray:
    """The reference."""
    return gate * up / (1 + np.exp(-gate))


def interleaved_rows(size: int) -> np.ndarray:
    """The order of the stacked rows of gate and up (F,D): 16 of gate, 16 of up, ..., -1 where both are padded to 32."""
    order = np.full((2, -(-size // 32) * 32), -1)
    order[0, :size], order[1, :size] = np.arange(size), size + np.arange(size)
    return order.reshape(2, -1, 16).swapaxes(0, 1).reshape(-1)


@kernel
def swiglu(gate_up, n, first, last, out, form):
    """Groups first ... last-1 of 32 columns of row n into `out` (Activations). gate_up (N,C) begins with `first`."""
    for group in range(first, last):
        k = 64 * (group - first)
        low = silu_times(load(gate_up, n, k), load(gate_up, n, k + 16))
        high = silu_times(load(gate_up, n, k + 32), load(gate_up, n, k + 48))
        write_group(low, high, n, group, out, form)


@kernel
def silu_times(gate, up):
    one, zero = splat(np.float32(1)), splat(np.float32(0))
    return gate * up / (one + exp(zero - gate))
