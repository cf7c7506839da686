"""Products with quantized weights by the byte dot product: one token, or four with three blocks or one at a time.

For token n and the 16 rows of a block, lanes are rows, and group after group, in ascending order,

    total = fma(float(sum of u q  -  zero_point * sum of q),  d * s,  total)      the integers are exact
    least = fma(m,  s * sum of q,  least)                                         where the kind has minima

and out = total + least. Every form here, and gemm_int8_amx.py, takes these steps in this order: a row's bits do not
depend on how many tokens travel together. The plain twin is `linear_plain` in linear.py.
Not here: which form is taken when (linear.py). Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import keep_together, kernel
from nano_llama.vol3_engine.cpu.kernels.pack import BYTES_OF_UNIT, GROUP
from nano_llama.vol3_engine.cpu.kernels.unpack import MINIMA, SCALES, UNPACKED, has_minima, is_small, zero_point
from nano_llama.vol3_engine.cpu.simd.int8_dot import (
    dot,
    dot_nibbles,
    dot_whole,
    high_nibbles,
    low_nibbles,
    nibbles_added,
    no_nibbles,
)
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    fma,
    load,
    load_bytes,
    load_half,
    prefetch,
    quad,
    splat,
    store,
    to_float,
)

AHEAD = 4096  # bytes before they are needed, the next units are asked for: a quarter of a microsecond


@kernel
def put(total, add, out, n, column):
    """out[n, column : column + 16] = total, or += where `add`."""
    if add:
        total = load(out, n, column) + total
    store(out, n, column, total)


@kernel
def one_token(w, x, n, first, last, units, add, out):
    """out[n, 16 b ...] for blocks first <= b < last, straight from the packed weights: as fast as memory gives them."""
    size, small, minima = BYTES_OF_UNIT[w.kind], is_small(w.kind), has_minima(w.kind)
    data, zero = 512 if small else 1024, zero_point(w.kind)
    at = first * units * size
    for block in range(first, last):
        total = least = splat(np.float32(0))
        for unit in range(units):
            for line in range(0, size, 64):
                prefetch(w.data, at + AHEAD + line)
            for side in range(2):
                group = 2 * unit + side
                sums = splat(-zero * x.sums[n // 16, group, n % 16])
                if small:
                    sums = small_group(sums, w.data, at + 256 * side, x.quantized, n, GROUP * group)
                else:
                    sums = large_group(sums, w.data, at + 512 * side, x.quantized, n, GROUP * group)
                scale = load_half(w.data, at + data + 32 * side) * splat(x.scales[n // 16, group, n % 16])
                total = fma(to_float(sums), scale, total)
                if minima:
                    least = fma(
                        load_half(w.data, at + data + 64 + 32 * side), splat(x.minima[n // 16, group, n % 16]), least
                    )
            at += size
        put(total + least, add, out, n, 16 * block)


@kernel
def large_group(sums, data, at, q, n, k):
    """sums + the products of 32 columns, 8 quads; two chains, so that one does not wait for the other."""
    keep_together()
    other = splat(0)
    for pair in range(4):
        sums = dot(sums, load_bytes(data, at + 128 * pair), quad(q, n, k + 8 * pair))
        other = dot(other, load_bytes(data, at + 128 * pair + 64), quad(q, n, k + 8 * pair + 4))
    return sums + other


@kernel
def small_group(sums, data, at, q, n, k):
    """The same for nibbles: each load holds two quads."""
    keep_together()
    one = other = no_nibbles()
    for pair in range(4):
        bytes_ = load_bytes(data, at + 64 * pair)
        one = dot_nibbles(one, low_nibbles(bytes_), quad(q, n, k + 8 * pair))
        other = dot_nibbles(other, high_nibbles(bytes_), quad(q, n, k + 8 * pair + 4))
    return sums + nibbles_added(one, other)


# -- four tokens at a time, from the scratch of unpack.py -------------------------------------------------------


@kernel
def four(value):
    return value, value, value, value


@kernel
def dots(sums, bytes_, quads):
    """One block's quad of columns with four tokens."""
    keep_together()
    return (
        dot(sums[0], bytes_, quads[0]),
        dot(sums[1], bytes_, quads[1]),
        dot(sums[2], bytes_, quads[2]),
        dot(sums[3], bytes_, quads[3]),
    )


@kernel
def quads_of(q, n, k):
    keep_together()
    return quad(q, n, k), quad(q, n + 1, k), quad(q, n + 2, k), quad(q, n + 3, k)


@kernel
def of_four(values, n, group):
    """What four tokens have for a group; n is a multiple of 4, so they lie in one tile."""
    keep_together()
    tile, row = n // 16, n % 16
    return (
        splat(values[tile, group, row]),
        splat(values[tile, group, row + 1]),
        splat(values[tile, group, row + 2]),
        splat(values[tile, group, row + 3]),
    )


@kernel
def starts(x, n, group, zero):
    keep_together()
    sums, less = of_four(x.sums, n, group), splat(-zero)
    return sums[0] * less, sums[1] * less, sums[2] * less, sums[3] * less


@kernel
def scaled(totals, sums, d, scales):
    keep_together()
    return (
        fma(to_float(sums[0]), d * scales[0], totals[0]),
        fma(to_float(sums[1]), d * scales[1], totals[1]),
        fma(to_float(sums[2]), d * scales[2], totals[2]),
        fma(to_float(sums[3]), d * scales[3], totals[3]),
    )


@kernel
def least_of_four(scratch, at, units, x, n):
    """What the minima of one block give four tokens."""
    least = four(splat(np.float32(0)))
    for group in range(2 * units):
        m = load_half(scratch, at + group // 2 * UNPACKED + MINIMA + 32 * (group % 2))
        minima = of_four(x.minima, n, group)
        least = (
            fma(m, minima[0], least[0]),
            fma(m, minima[1], least[1]),
            fma(m, minima[2], least[2]),
            fma(m, minima[3], least[3]),
        )
    return least


@kernel
def plus(one, other):
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]


@kernel
def put_four(totals, tokens, add, out, n, column):
    """The first `tokens` of four totals; the others belong to rows of padding."""
    put(totals[0], add, out, n, column)
    if tokens > 1:
        put(totals[1], add, out, n + 1, column)
    if tokens > 2:
        put(totals[2], add, out, n + 2, column)
    if tokens > 3:
        put(totals[3], add, out, n + 3, column)


@kernel
def four_tokens_three_blocks(scratch, units, zero, minima, x, n, tokens, add, out, column):
    """12 totals of 16 lanes: all that fits into 32 registers beside the operands."""
    stride = units * UNPACKED
    totals0, totals1, totals2 = four(splat(np.float32(0))), four(splat(np.float32(0))), four(splat(np.float32(0)))
    for unit in range(units):
        for side in range(2):
            at, group = unit * UNPACKED, 2 * unit + side
            sums0 = starts(x, n, group, zero)
            sums1, sums2 = sums0, sums0
            for j in range(8):
                place, quads = at + 512 * side + 64 * j, quads_of(x.quantized, n, GROUP * group + 4 * j)
                sums0 = dots(sums0, load_bytes(scratch, place), quads)
                sums1 = dots(sums1, load_bytes(scratch, place + stride), quads)
                sums2 = dots(sums2, load_bytes(scratch, place + 2 * stride), quads)
            place, scales = at + SCALES + 32 * side, of_four(x.scales, n, group)
            totals0 = scaled(totals0, sums0, load_half(scratch, place), scales)
            totals1 = scaled(totals1, sums1, load_half(scratch, place + stride), scales)
            totals2 = scaled(totals2, sums2, load_half(scratch, place + 2 * stride), scales)
    if minima:
        totals0 = plus(totals0, least_of_four(scratch, 0, units, x, n))
        totals1 = plus(totals1, least_of_four(scratch, stride, units, x, n))
        totals2 = plus(totals2, least_of_four(scratch, 2 * stride, units, x, n))
    put_four(totals0, tokens, add, out, n, column)
    put_four(totals1, tokens, add, out, n, column + 16)
    put_four(totals2, tokens, add, out, n, column + 32)


# -- a block left over, or where registers hold no more -----------------------------------------------------------


@kernel
def small_group_with_two(scratch, at, q, n, k):
    """The products of one block's 32 columns, 8 quads of nibbles, with two tokens."""
    keep_together()
    a = b = none = no_nibbles()
    for j in range(8):
        bytes_ = load_bytes(scratch, at + 64 * j)
        a = dot_nibbles(a, bytes_, quad(q, n, k + 4 * j))
        b = dot_nibbles(b, bytes_, quad(q, n + 1, k + 4 * j))
    return nibbles_added(a, none), nibbles_added(b, none)


@kernel
def large_group_with_two(scratch, at, q, n, k):
    """The same for bytes."""
    keep_together()
    a = b = splat(0)
    for j in range(8):
        bytes_ = load_bytes(scratch, at + 64 * j)
        a = dot_whole(a, bytes_, quad(q, n, k + 4 * j))
        b = dot_whole(b, bytes_, quad(q, n + 1, k + 4 * j))
    return a, b


@kernel
def two_totals(scratch, units, small, less, x, n):
    """One block with the tokens n and n + 1, without minima; n is even."""
    keep_together()
    total = other = splat(np.float32(0))
    tile, row = n // 16, n % 16
    for group in range(2 * units):
        at, side = group // 2 * UNPACKED, group % 2
        d = load_half(scratch, at + SCALES + 32 * side)
        if small:
            a, b = small_group_with_two(scratch, at + 512 * side, x.quantized, n, GROUP * group)
        else:
            a, b = large_group_with_two(scratch, at + 512 * side, x.quantized, n, GROUP * group)
        a = a + splat(x.sums[tile, group, row]) * less
        b = b + splat(x.sums[tile, group, row + 1]) * less
        total = fma(to_float(a), d * splat(x.scales[tile, group, row]), total)
        other = fma(to_float(b), d * splat(x.scales[tile, group, row + 1]), other)
    return total, other


@kernel
def four_tokens_one_block(scratch, units, small, zero, minima, x, n, tokens, add, out, column):
    """Two and two, so that 16 registers of 32 bytes are enough."""
    less = splat(-zero)
    first = last = two_totals(scratch, units, small, less, x, n)
    if tokens > 2:
        last = two_totals(scratch, units, small, less, x, n + 2)
    totals = first[0], first[1], last[0], last[1]
    if minima:
        totals = plus(totals, least_of_four(scratch, 0, units, x, n))
    put_four(totals, tokens, add, out, n, column)
