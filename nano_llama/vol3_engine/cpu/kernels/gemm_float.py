"""Products with weights that are floats of 32 or 16 bits: one fused multiply-add a column, in ascending order.

    total = fma(w[k], x[n, k], total)       for 16 rows at a time; halves become floats as they are loaded

Several blocks, or several tokens, go side by side, so that the chains of additions do not wait for each other; each
chain's order is the same in every form. Not here: quantized weights (gemm_int8.py).
Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.isa import has_room
from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.gemm_int8 import four, put, put_four
from nano_llama.vol3_engine.cpu.kernels.pack import BF16, F32
from nano_llama.vol3_engine.cpu.simd.intrinsics import fma, load, load_bfloat, load_half, prefetch, splat

ROOM = has_room()  # for 4 tokens with 4 blocks, elsewhere with one


@kernel
def column_of(w, at):
    """16 rows' weights of a column, from byte `at`."""
    if w.kind == F32:
        return load(w.data, at)
    if w.kind == BF16:
        return load_bfloat(w.data, at)
    return load_half(w.data, at)


@kernel
def four_of(x, n, k):
    return splat(x[n, k]), splat(x[n + 1, k]), splat(x[n + 2, k]), splat(x[n + 3, k])


@kernel
def fmas(totals, column, values):
    return (
        fma(column, values[0], totals[0]),
        fma(column, values[1], totals[1]),
        fma(column, values[2], totals[2]),
        fma(column, values[3], totals[3]),
    )


@kernel
def one_token_four_blocks(w, x, n, block, stride, width, add, out):
    """stride: bytes of a block; width: bytes of a column."""
    a = b = c = d = splat(np.float32(0))
    start = block * stride
    for k in range(w.columns):
        at, value = start + k * width, splat(x.values[n, k])
        if k % 2 == 0:
            for line in range(4):
                prefetch(w.data, at + line * stride + 512)
        a = fma(column_of(w, at), value, a)
        b = fma(column_of(w, at + stride), value, b)
        c = fma(column_of(w, at + 2 * stride), value, c)
        d = fma(column_of(w, at + 3 * stride), value, d)
    put(a, add, out, n, 16 * block)
    put(b, add, out, n, 16 * block + 16)
    put(c, add, out, n, 16 * block + 32)
    put(d, add, out, n, 16 * block + 48)


@kernel
def one_token_one_block(w, x, n, block, stride, width, add, out):
    total = splat(np.float32(0))
    for k in range(w.columns):
        total = fma(column_of(w, block * stride + k * width), splat(x.values[n, k]), total)
    put(total, add, out, n, 16 * block)


@kernel
def four_tokens_four_blocks(w, x, n, tokens, block, stride, width, add, out):
    a = b = c = d = four(splat(np.float32(0)))
    start = block * stride
    for k in range(w.columns):
        at, values = start + k * width, four_of(x.values, n, k)
        a = fmas(a, column_of(w, at), values)
        b = fmas(b, column_of(w, at + stride), values)
        c = fmas(c, column_of(w, at + 2 * stride), values)
        d = fmas(d, column_of(w, at + 3 * stride), values)
    put_four(a, tokens, add, out, n, 16 * block)
    put_four(b, tokens, add, out, n, 16 * block + 16)
    put_four(c, tokens, add, out, n, 16 * block + 32)
    put_four(d, tokens, add, out, n, 16 * block + 48)


@kernel
def four_tokens_one_block(w, x, n, tokens, block, stride, width, add, out):
    totals = four(splat(np.float32(0)))
    for k in range(w.columns):
        totals = fmas(totals, column_of(w, block * stride + k * width), four_of(x.values, n, k))
    put_four(totals, tokens, add, out, n, 16 * block)


@kernel
def float_blocks(w, x, tokens, first, last, stride, width, add, out):
    """out[n, 16 b ...] for all tokens n and blocks first <= b < last."""
    block = first
    while block < last:
        whole = last - block >= 4 and (ROOM or tokens == 1)
        for n in range(0, tokens, 4):
            if tokens - n == 1 and whole:
                one_token_four_blocks(w, x, n, block, stride, width, add, out)
            elif tokens - n == 1:
                one_token_one_block(w, x, n, block, stride, width, add, out)
            elif whole:
                four_tokens_four_blocks(w, x, n, tokens - n, block, stride, width, add, out)
            else:
                four_tokens_one_block(w, x, n, tokens - n, block, stride, width, add, out)
        block += 4 if whole else 1
