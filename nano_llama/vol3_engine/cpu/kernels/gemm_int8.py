"""Gemm with quantized weights by the byte dot product: one token, or four with three blocks or one at a time.

For token n and the 16 rows of a block, lanes are rows, and group by group, in ascending order,

    acc     = fma(float(sum of u q  -  zero_point * sum of q),  d * s,  acc)      the integers are exact
    min_acc = fma(m,  s * sum of q,  min_acc)                                     where the kind has minima

and out = acc + min_acc. Every form here, and gemm_int8_amx.py, takes these steps in this order: a row's bits do not
depend on how many tokens travel together. The reference is `linear_plain` in linear.py.
Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.isa import has_32_vector_registers
from nano_llama.vol3_engine.cpu.jit.jit import always_inline, kernel
from nano_llama.vol3_engine.cpu.kernels.gemm_output import four, write_four, write_row
from nano_llama.vol3_engine.cpu.kernels.kinds import (
    GROUP,
    data_bytes,
    has_minima,
    is_4bit,
    unit_bytes,
    zero_point,
)
from nano_llama.vol3_engine.cpu.kernels.unpack import (
    MINIMA,
    SCALES,
    UNPACKED_UNIT,
    unpack_block,
)
from nano_llama.vol3_engine.cpu.simd.int8_dot import (
    SIGNED_WEIGHTS,
    add_nibble_sums,
    dot,
    dot_nibbles,
    dot_signed,
    high_nibbles,
    low_nibbles,
    zero_nibble_sums,
)
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    broadcast_quad,
    fma,
    load_bytes,
    load_half,
    prefetch,
    splat,
    to_float,
)

PREFETCH_AHEAD = 4096  # bytes: a quarter of a microsecond before they are needed
BLOCKS_AT_ONCE = 3 if has_32_vector_registers() else 1  # with four tokens


# -- one token, straight from the packed weights ----------------------------------------------------------------------


@kernel
def gemv_int8(w, x, n, first, last, units, add, out):
    """out[n, 16 b ...] for blocks first <= b < last, at memory speed."""
    size, small, minima = unit_bytes(w.kind), is_4bit(w.kind), has_minima(w.kind)
    data, zero = data_bytes(w.kind), zero_point(w.kind)
    at = first * units * size
    for block in range(first, last):
        acc = min_acc = splat(np.float32(0))
        for unit in range(units):
            for line in range(0, size, 64):
                prefetch(w.data, at + PREFETCH_AHEAD + line)
            for side in range(2):
                group = 2 * unit + side
                sums = splat(-zero * x.sums[n // 16, group, n % 16])
                if small:
                    sums = dot_group_4bit(sums, w.data, at + 256 * side, x.quantized, n, GROUP * group)
                else:
                    sums = dot_group_8bit(sums, w.data, at + 512 * side, x.quantized, n, GROUP * group)
                scale = load_half(w.data, at + data + 32 * side) * splat(x.scales[n // 16, group, n % 16])
                acc = fma(to_float(sums), scale, acc)
                if minima:
                    min_acc = fma(
                        load_half(w.data, at + data + 64 + 32 * side), splat(x.minima[n // 16, group, n % 16]), min_acc
                    )
            at += size
        write_row(acc + min_acc, add, out, n, 16 * block)


@kernel
def dot_group_8bit(sums, data, at, q, n, k):
    """sums + the products of 32 columns, 8 quads; two chains, so that one does not wait for the other."""
    always_inline()
    odd = splat(0)
    for pair in range(4):
        sums = dot(sums, load_bytes(data, at + 128 * pair), broadcast_quad(q, n, k + 8 * pair))
        odd = dot(odd, load_bytes(data, at + 128 * pair + 64), broadcast_quad(q, n, k + 8 * pair + 4))
    return sums + odd


@kernel
def dot_group_4bit(sums, data, at, q, n, k):
    """The same for nibbles: each load holds two quads."""
    always_inline()
    even = odd = zero_nibble_sums()
    for pair in range(4):
        bytes_ = load_bytes(data, at + 64 * pair)
        even = dot_nibbles(even, low_nibbles(bytes_), broadcast_quad(q, n, k + 8 * pair))
        odd = dot_nibbles(odd, high_nibbles(bytes_), broadcast_quad(q, n, k + 8 * pair + 4))
    return sums + add_nibble_sums(even, odd)


# -- four tokens at a time, from blocks that unpack.py has unpacked ---------------------------------------------------


@kernel
def gemm_int8(w, x, tokens, first, last, units, add, unpacked, out):
    """Blocks first <= b < last of W x for `tokens` rows of x. unpacked: scratch memory for BLOCKS_AT_ONCE blocks."""
    small, minima = is_4bit(w.kind), has_minima(w.kind)
    signed = SIGNED_WEIGHTS and not small
    zero = 0 if signed else zero_point(w.kind)
    block = first
    while block < last:
        together = BLOCKS_AT_ONCE if last - block >= BLOCKS_AT_ONCE else 1
        for i in range(together):
            unpack_block(w, block + i, units, signed=signed, scratch=unpacked, to=i * units * UNPACKED_UNIT)
        for n in range(0, tokens, 4):
            if together == 3:
                gemm_int8_4x3(unpacked, units, zero, minima, x, n, tokens - n, add, out, column=16 * block)
            else:
                gemm_int8_4x1(unpacked, units, small, zero, minima, x, n, tokens - n, add, out, column=16 * block)
        block += together


@kernel
def dot_four(sums, bytes_, quads):
    """One block's quad of columns with four tokens."""
    always_inline()
    return (
        dot(sums[0], bytes_, quads[0]),
        dot(sums[1], bytes_, quads[1]),
        dot(sums[2], bytes_, quads[2]),
        dot(sums[3], bytes_, quads[3]),
    )


@kernel
def quads_of_four(q, n, k):
    always_inline()
    return (
        broadcast_quad(q, n, k),
        broadcast_quad(q, n + 1, k),
        broadcast_quad(q, n + 2, k),
        broadcast_quad(q, n + 3, k),
    )


@kernel
def of_four_tokens(values, n, group):
    """A group's scales, sums or minima for four tokens; n is a multiple of 4, so they lie in one tile."""
    always_inline()
    tile, row = n // 16, n % 16
    return (
        splat(values[tile, group, row]),
        splat(values[tile, group, row + 1]),
        splat(values[tile, group, row + 2]),
        splat(values[tile, group, row + 3]),
    )


@kernel
def initial_sums(x, n, group, zero):
    """-zero_point * sum of q, where the integer sums of a group start."""
    always_inline()
    sums, factor = of_four_tokens(x.sums, n, group), splat(-zero)
    return sums[0] * factor, sums[1] * factor, sums[2] * factor, sums[3] * factor


@kernel
def add_scaled(acc, sums, d, scales):
    always_inline()
    return (
        fma(to_float(sums[0]), d * scales[0], acc[0]),
        fma(to_float(sums[1]), d * scales[1], acc[1]),
        fma(to_float(sums[2]), d * scales[2], acc[2]),
        fma(to_float(sums[3]), d * scales[3], acc[3]),
    )


@kernel
def min_acc_of_four(unpacked, at, units, x, n):
    """The minima's part of one block with four tokens."""
    min_acc = four(splat(np.float32(0)))
    for group in range(2 * units):
        m = load_half(unpacked, at + group // 2 * UNPACKED_UNIT + MINIMA + 32 * (group % 2))
        minima = of_four_tokens(x.minima, n, group)
        min_acc = (
            fma(m, minima[0], min_acc[0]),
            fma(m, minima[1], min_acc[1]),
            fma(m, minima[2], min_acc[2]),
            fma(m, minima[3], min_acc[3]),
        )
    return min_acc


@kernel
def add_four(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]


@kernel
def gemm_int8_4x3(unpacked, units, zero, minima, x, n, tokens, add, out, column):
    """Four tokens with three blocks: 12 accumulators, all that fits into 32 registers beside the operands."""
    stride = units * UNPACKED_UNIT
    acc0, acc1, acc2 = four(splat(np.float32(0))), four(splat(np.float32(0))), four(splat(np.float32(0)))
    for unit in range(units):
        for side in range(2):
            at, group = unit * UNPACKED_UNIT, 2 * unit + side
            sums0 = initial_sums(x, n, group, zero)
            sums1, sums2 = sums0, sums0
            for j in range(8):
                place, quads = at + 512 * side + 64 * j, quads_of_four(x.quantized, n, GROUP * group + 4 * j)
                sums0 = dot_four(sums0, load_bytes(unpacked, place), quads)
                sums1 = dot_four(sums1, load_bytes(unpacked, place + stride), quads)
                sums2 = dot_four(sums2, load_bytes(unpacked, place + 2 * stride), quads)
            place, scales = at + SCALES + 32 * side, of_four_tokens(x.scales, n, group)
            acc0 = add_scaled(acc0, sums0, load_half(unpacked, place), scales)
            acc1 = add_scaled(acc1, sums1, load_half(unpacked, place + stride), scales)
            acc2 = add_scaled(acc2, sums2, load_half(unpacked, place + 2 * stride), scales)
    if minima:
        acc0 = add_four(acc0, min_acc_of_four(unpacked, 0, units, x, n))
        acc1 = add_four(acc1, min_acc_of_four(unpacked, stride, units, x, n))
        acc2 = add_four(acc2, min_acc_of_four(unpacked, 2 * stride, units, x, n))
    write_four(acc0, tokens, add, out, n, column)
    write_four(acc1, tokens, add, out, n, column + 16)
    write_four(acc2, tokens, add, out, n, column + 32)


# -- a block left over, or CPUs with 16 registers ---------------------------------------------------------------------


@kernel
def dot_group_4bit_two_tokens(unpacked, at, q, n, k):
    """The products of one block's 32 columns, 8 quads of nibbles, with two tokens."""
    always_inline()
    a = b = zero = zero_nibble_sums()
    for j in range(8):
        bytes_ = load_bytes(unpacked, at + 64 * j)
        a = dot_nibbles(a, bytes_, broadcast_quad(q, n, k + 4 * j))
        b = dot_nibbles(b, bytes_, broadcast_quad(q, n + 1, k + 4 * j))
    return add_nibble_sums(a, zero), add_nibble_sums(b, zero)


@kernel
def dot_group_8bit_two_tokens(unpacked, at, q, n, k):
    """The same for bytes."""
    always_inline()
    a = b = splat(0)
    for j in range(8):
        bytes_ = load_bytes(unpacked, at + 64 * j)
        a = dot_signed(a, bytes_, broadcast_quad(q, n, k + 4 * j))
        b = dot_signed(b, bytes_, broadcast_quad(q, n + 1, k + 4 * j))
    return a, b


@kernel
def acc_of_two_tokens(unpacked, units, small, zero, x, n):
    """One block with the tokens n and n + 1, without minima; n is even."""
    always_inline()
    acc0 = acc1 = splat(np.float32(0))
    factor = splat(-zero)
    tile, row = n // 16, n % 16
    for group in range(2 * units):
        at, side = group // 2 * UNPACKED_UNIT, group % 2
        d = load_half(unpacked, at + SCALES + 32 * side)
        if small:
            a, b = dot_group_4bit_two_tokens(unpacked, at + 512 * side, x.quantized, n, GROUP * group)
        else:
            a, b = dot_group_8bit_two_tokens(unpacked, at + 512 * side, x.quantized, n, GROUP * group)
        a = a + splat(x.sums[tile, group, row]) * factor
        b = b + splat(x.sums[tile, group, row + 1]) * factor
        acc0 = fma(to_float(a), d * splat(x.scales[tile, group, row]), acc0)
        acc1 = fma(to_float(b), d * splat(x.scales[tile, group, row + 1]), acc1)
    return acc0, acc1


@kernel
def gemm_int8_4x1(unpacked, units, small, zero, minima, x, n, tokens, add, out, column):
    """Four tokens with one block, two tokens at a time, so that 16 registers of 32 bytes are enough."""
    first = last = acc_of_two_tokens(unpacked, units, small, zero, x, n)
    if tokens > 2:
        last = acc_of_two_tokens(unpacked, units, small, zero, x, n + 2)
    acc = first[0], first[1], last[0], last[1]
    if minima:
        acc = add_four(acc, min_acc_of_four(unpacked, 0, units, x, n))
    write_four(acc, tokens, add, out, n, column)
