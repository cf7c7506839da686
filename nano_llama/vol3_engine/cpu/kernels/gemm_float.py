"""Gemm with weights that are floats of 32 or 16 bits: one fused multiply-add per column, in ascending order.

    acc = fma(w[k], x[n, k], acc)       for 16 rows at a time; 16-bit weights become floats as they are loaded

Several blocks, or several tokens, go side by side, so that the chains of additions do not wait for each other; each
chain's order is the same in every form. Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.isa import has_32_vector_registers
from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.gemm_output import four, write_four, write_row
from nano_llama.vol3_engine.cpu.kernels.kinds import BF16, F32
from nano_llama.vol3_engine.cpu.simd.intrinsics import fma, load, load_bfloat, load_half, prefetch, splat

HAS_32_REGISTERS = has_32_vector_registers()  # enough for 4 tokens x 4 blocks, elsewhere 4 x 1


@kernel
def load_column(w, at):
    """16 rows' weights of a column, from byte `at`."""
    if w.kind == F32:
        return load(w.data, at)
    if w.kind == BF16:
        return load_bfloat(w.data, at)
    return load_half(w.data, at)


@kernel
def float_strides(w):
    """Bytes of a column of 16 rows, and of a block of them."""
    if w.kind == F32:
        return 64, w.columns * 64
    return 32, (w.columns + 1) // 2 * 64


@kernel
def broadcast_four(x, n, k):
    return splat(x[n, k]), splat(x[n + 1, k]), splat(x[n + 2, k]), splat(x[n + 3, k])


@kernel
def fma_four(acc, column, values):
    return (
        fma(column, values[0], acc[0]),
        fma(column, values[1], acc[1]),
        fma(column, values[2], acc[2]),
        fma(column, values[3], acc[3]),
    )


@kernel
def gemm_float(w, x, tokens, first, last, add, out):
    """Blocks first <= b < last of W x for `tokens` rows of x; added to `out` where `add`."""
    width, stride = float_strides(w)
    block = first
    while block < last:
        four_blocks = last - block >= 4 and (HAS_32_REGISTERS or tokens == 1)
        for n in range(0, tokens, 4):
            if tokens - n == 1 and four_blocks:
                gemv_float_4_blocks(w, x, n, block, width=width, stride=stride, add=add, out=out)
            elif tokens - n == 1:
                gemv_float_1_block(w, x, n, block, width=width, stride=stride, add=add, out=out)
            elif four_blocks:
                gemm_float_4x4(w, x, n, tokens - n, block, width=width, stride=stride, add=add, out=out)
            else:
                gemm_float_4x1(w, x, n, tokens - n, block, width=width, stride=stride, add=add, out=out)
        block += 4 if four_blocks else 1


@kernel
def gemv_float_4_blocks(w, x, n, block, width, stride, add, out):
    a = b = c = d = splat(np.float32(0))
    start = block * stride
    for k in range(w.columns):
        at, value = start + k * width, splat(x.values[n, k])
        if k % 2 == 0:
            for line in range(4):
                prefetch(w.data, at + line * stride + 512)
        a = fma(load_column(w, at), value, a)
        b = fma(load_column(w, at + stride), value, b)
        c = fma(load_column(w, at + 2 * stride), value, c)
        d = fma(load_column(w, at + 3 * stride), value, d)
    write_row(a, add, out, n, 16 * block)
    write_row(b, add, out, n, 16 * block + 16)
    write_row(c, add, out, n, 16 * block + 32)
    write_row(d, add, out, n, 16 * block + 48)


@kernel
def gemv_float_1_block(w, x, n, block, width, stride, add, out):
    acc = splat(np.float32(0))
    for k in range(w.columns):
        acc = fma(load_column(w, block * stride + k * width), splat(x.values[n, k]), acc)
    write_row(acc, add, out, n, 16 * block)


@kernel
def gemm_float_4x4(w, x, n, tokens, block, width, stride, add, out):
    a = b = c = d = four(splat(np.float32(0)))
    start = block * stride
    for k in range(w.columns):
        at, values = start + k * width, broadcast_four(x.values, n, k)
        a = fma_four(a, load_column(w, at), values)
        b = fma_four(b, load_column(w, at + stride), values)
        c = fma_four(c, load_column(w, at + 2 * stride), values)
        d = fma_four(d, load_column(w, at + 3 * stride), values)
    write_four(a, tokens, add, out, n, 16 * block)
    write_four(b, tokens, add, out, n, 16 * block + 16)
    write_four(c, tokens, add, out, n, 16 * block + 32)
    write_four(d, tokens, add, out, n, 16 * block + 48)


@kernel
def gemm_float_4x1(w, x, n, tokens, block, width, stride, add, out):
    acc = four(splat(np.float32(0)))
    for k in range(w.columns):
        acc = fma_four(acc, load_column(w, block * stride + k * width), broadcast_four(x.values, n, k))
    write_four(acc, tokens, add, out, n, 16 * block)
