"""Gemm for prefill rows on CPUs with AMX: bfloat16 tiles, 32 tokens with two blocks of 16 rows at a time.

Prefill rows come by the hundred, so it pays to unpack the weights to bfloat16 once for all of them; then nothing stands
between one tile product and the next, as the scales of groups do in gemm_int8_amx.py.
Weights and activations are rounded to 8 bits of mantissa, sums are float32:

    |out - W x| <= (2^-8 + 2^-18) sum of |w x|, plus float32's own rounding of the sum

A row's bits depend on that row alone: a row of a tile does not see the others. Whether a row is a prefill row does not
depend on the rest of the batch either (cpu/batch.py).
Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.aligned import CACHE_LINE
from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.kinds import (
    BF16,
    UNIT,
    data_bytes,
    has_minima,
    is_4bit,
    unit_bytes,
    zero_point,
)
from nano_llama.vol3_engine.cpu.simd.amx import configure_tiles, release_tiles
from nano_llama.vol3_engine.cpu.simd.amx_bf16 import BF16_TILES, gemm_tiles_bf16
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    extract_bits,
    fma,
    load_bfloat,
    load_half,
    load_i32,
    pack_bfloat_pairs,
    prefetch,
    splat,
    store,
    to_float,
)


@kernel
def padded_pairs(columns):
    """Pairs of columns, padding included."""
    return (columns + UNIT - 1) // UNIT * UNIT // 2


@kernel
def unpack_block_bf16(w, block, lines, to):
    """Block `block` of w as bfloat16, column pairs 2p, 2p+1 of its 16 rows in lines[to + p] (32 uint16)."""
    if w.kind == BF16:
        stored = (w.columns + 1) // 2
        for pair in range(stored):
            at = (block * stored + pair) * CACHE_LINE
            store(lines, to + pair, 0, pack_bfloat_pairs(load_bfloat(w.data, at), load_bfloat(w.data, at + 32)))
        for pair in range(stored, padded_pairs(w.columns)):
            store(lines, to + pair, 0, splat(0))
        return
    units = (w.columns + UNIT - 1) // UNIT
    size, small, zero = unit_bytes(w.kind), is_4bit(w.kind), np.float32(-zero_point(w.kind))
    data = data_bytes(w.kind)
    quads, width, mask = (4, 2, 15) if small else (8, 1, 255)
    for unit in range(units):
        for line in range(0, size, CACHE_LINE):  # of the block after the next, while these two are multiplied
            prefetch(w.data, (block + 2) * units * size + unit * size + line)
        for side in range(2):
            at = (block * units + unit) * size
            d = load_half(w.data, at + data + 32 * side)
            offset = d * splat(zero)
            if has_minima(w.kind):
                offset = offset + load_half(w.data, at + data + 64 + 32 * side)
            at += side * data // 2
            for quad in range(quads):
                bytes_ = load_i32(w.data, at + 64 * quad)
                for half in range(width):
                    for pair in range(2):
                        low = extract_bits(bytes_, 16 * pair + 4 * half, mask)
                        high = extract_bits(bytes_, 16 * pair + 8 + 4 * half, mask)
                        low_float, high_float = fma(to_float(low), d, offset), fma(to_float(high), d, offset)
                        store(lines, to, 0, pack_bfloat_pairs(low_float, high_float))
                        to += 1


@kernel
def gemm_bf16_amx(w, x, begin, end, first, last, add, lines, out):
    """Blocks first <= b < last of W x for rows begin ... end-1 of x (N,C) bfloat16; added to `out` where `add`.

    lines: scratch memory for two blocks. Up to 15 rows after the last are written.
    """
    pairs = padded_pairs(w.columns)
    configure_tiles(BF16_TILES)
    for block in range(first, last, 2):
        two_blocks = block + 1 < last
        unpack_block_bf16(w, block, lines, 0)
        if two_blocks:
            unpack_block_bf16(w, block + 1, lines, pairs)
        for n in range(begin, end, 32):
            gemm_tiles_bf16(
                x, n, lines=lines, pairs=pairs, out=out, column=16 * block, two_row_tiles=end - n > 16,
                two_blocks=two_blocks, accumulate=add,
            )  # fmt: skip
    release_tiles()
