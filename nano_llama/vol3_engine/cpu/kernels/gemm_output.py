"""How a gemm's accumulators reach its output: 16 rows of W are the lanes of a vector, one vector per token.

Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, store


@kernel
def four(value):
    """The same for four tokens."""
    return value, value, value, value


@kernel
def write_row(acc, add, out, n, column):
    """out[n, column : column + 16] = acc, or += where `add`."""
    if add:
        acc = load(out, n, column) + acc
    store(out, n, column, acc)


@kernel
def write_four(acc, tokens, add, out, n, column):
    """The first `tokens` of four vectors; the others belong to padding."""
    write_row(acc[0], add, out, n, column)
    if tokens > 1:
        write_row(acc[1], add, out, n + 1, column)
    if tokens > 2:
        write_row(acc[2], add, out, n + 2, column)
    if tokens > 3:
        write_row(acc[3], add, out, n + 3, column)
