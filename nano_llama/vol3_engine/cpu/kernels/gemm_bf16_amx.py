"""Products for the tokens of prompts on processors with AMX: bfloat16 tiles, 32 tokens with two blocks at a time.

A prompt's tokens come by the hundred, so weights are worth being taken apart into bfloat16 once for all of them, and
then nothing stands between one product of tiles and the next, as the scales of groups of bytes do (gemm_int8_amx.py).
Weights and activations are rounded to 8 bits of mantissa, sums are float32:

    |out - W x| <= (2^-8 + 2^-18) sum of |w x|, and float32's own rounding of the sum

A row's bits depend on itself alone: a row of a tile does not see the others. Whether a token is a prompt's is its own
property too (batch.py), so a text's bits do not depend on its company.
Not here: tokens that were generated (gemm_int8.py, gemm_int8_amx.py). Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.pack import BF16, BYTES_OF_UNIT, LINE, UNIT
from nano_llama.vol3_engine.cpu.kernels.unpack import has_minima, is_small, zero_point
from nano_llama.vol3_engine.cpu.simd.amx import configure_tiles, release_tiles
from nano_llama.vol3_engine.cpu.simd.amx_bf16 import BF16_TILES, clear_tile, load_tile, multiply_tiles, store_tile
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    bfloat_pairs,
    bits_of,
    fma,
    load_bfloat,
    load_half,
    load_i32,
    prefetch,
    splat,
    store,
    to_float,
)

PAIRS = 16  # of columns: the lines of a tile of weights, 64 bytes each
C00, C01, C10, C11, A0, A1, B0, B1 = range(8)  # tile registers: sums of tokens 0, 1 with blocks 0, 1


@kernel
def pairs_of(columns):
    """Pairs of columns, padding included."""
    return (columns + UNIT - 1) // UNIT * UNIT // 2


@kernel
def pairs_of_block(w, block, lines, to):
    """Block `block` of w as bfloat16, column pairs 2p, 2p+1 of its 16 rows in lines[to + p] (32 uint16)."""
    if w.kind == BF16:
        stored = (w.columns + 1) // 2
        for pair in range(stored):
            at = (block * stored + pair) * LINE
            store(lines, to + pair, 0, bfloat_pairs(load_bfloat(w.data, at), load_bfloat(w.data, at + 32)))
        for pair in range(stored, pairs_of(w.columns)):
            store(lines, to + pair, 0, splat(0))
        return
    units = (w.columns + UNIT - 1) // UNIT
    size, small, zero = BYTES_OF_UNIT[w.kind], is_small(w.kind), np.float32(-zero_point(w.kind))
    data = 512 if small else 1024
    quads, width, mask = (4, 2, 15) if small else (8, 1, 255)
    for unit in range(units):
        for line in range(0, size, LINE):  # the block's after the next, while these two are multiplied
            prefetch(w.data, (block + 2) * units * size + unit * size + line)
        for side in range(2):
            at = (block * units + unit) * size
            d = load_half(w.data, at + data + 32 * side)
            least = d * splat(zero)
            if has_minima(w.kind):
                least = least + load_half(w.data, at + data + 64 + 32 * side)
            at += side * data // 2
            for quad in range(quads):
                bytes_ = load_i32(w.data, at + 64 * quad)
                for half in range(width):
                    for pair in range(2):
                        low = bits_of(bytes_, 16 * pair + 4 * half, mask)
                        high = bits_of(bytes_, 16 * pair + 8 + 4 * half, mask)
                        store(lines, to, 0, bfloat_pairs(fma(to_float(low), d, least), fma(to_float(high), d, least)))
                        to += 1


@kernel
def product_of_tiles(x, n, two_tiles, lines, pairs, two_blocks, add, out, column):
    """out[n : n + 32, column : column + 32] = x[n : n + 32] (bfloat16) times two blocks; += where `add`.

    Only 16 tokens, or one block, where there are not two. lines: the blocks' `pairs` lines, one block after the other.
    """
    if add:
        load_tile(C00, out, n, column)
        if two_blocks:
            load_tile(C01, out, n, column + 16)
        if two_tiles:
            load_tile(C10, out, n + 16, column)
            if two_blocks:
                load_tile(C11, out, n + 16, column + 16)
    else:
        clear_tile(C00)
        clear_tile(C01)
        clear_tile(C10)
        clear_tile(C11)
    for pair in range(0, pairs, PAIRS):
        load_tile(A0, x, n, 2 * pair)
        load_tile(B0, lines, pair, 0)
        multiply_tiles(C00, A0, B0)
        if two_blocks:
            load_tile(B1, lines, pairs + pair, 0)
            multiply_tiles(C01, A0, B1)
        if two_tiles:
            load_tile(A1, x, n + 16, 2 * pair)
            multiply_tiles(C10, A1, B0)
            if two_blocks:
                multiply_tiles(C11, A1, B1)
    store_tile(C00, out, n, column)
    if two_blocks:
        store_tile(C01, out, n, column + 16)
    if two_tiles:
        store_tile(C10, out, n + 16, column)
        if two_blocks:
            store_tile(C11, out, n + 16, column + 16)


@kernel
def prompt_blocks(w, x, begin, end, first, last, add, lines, out):
    """Blocks first <= b < last of W x for the rows begin ... end-1 of x (N,C) bfloat16; added to `out` where `add`.

    lines: room for two blocks. Up to 15 rows after the last are written.
    """
    pairs = pairs_of(w.columns)
    configure_tiles(BF16_TILES)
    for block in range(first, last, 2):
        two_blocks = block + 1 < last
        pairs_of_block(w, block, lines, 0)
        if two_blocks:
            pairs_of_block(w, block + 1, lines, pairs)
        for n in range(begin, end, 32):
            product_of_tiles(x, n, end - n > 16, lines, pairs, two_blocks, add, out, 16 * block)
    release_tiles()
