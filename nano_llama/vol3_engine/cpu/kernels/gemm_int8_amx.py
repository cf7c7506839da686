"""Gemm with quantized weights on CPUs with AMX: 16 tokens with one block of 16 rows at a time, by tiles of bytes.

The same steps in the same order as gemm_int8.py, so the same bits. Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.gemm_output import write_row
from nano_llama.vol3_engine.cpu.kernels.kinds import GROUP, has_minima
from nano_llama.vol3_engine.cpu.kernels.unpack import MINIMA, SCALES, UNPACKED_UNIT, unpack_block
from nano_llama.vol3_engine.cpu.simd.amx import (
    INT8_TILES,
    add_minima,
    add_scaled_product,
    configure_tiles,
    release_tiles,
    store_tile_sums,
    tile_product,
    zero_tile_sums,
)
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, load_half

LOOK_AHEAD = 1  # units whose products are computed while those of an earlier one are scaled and added
RING = 8  # products in flight: two per unit, for LOOK_AHEAD + 1 units and one more, a power of two


@kernel
def gemm_int8_amx(w, x, tokens, first, last, units, add, unpacked, ring, out):
    """Blocks first <= b < last of W x for `tokens` rows of x. unpacked: scratch memory for a block; ring (RING,256)."""
    minima = has_minima(w.kind)
    configure_tiles(INT8_TILES)
    for block in range(first, last):
        unpack_block(w, block, units, signed=True, scratch=unpacked, to=0)
        for n in range(0, tokens, 16):
            gemm_int8_amx_16x1(unpacked, units, minima, x, n, tokens - n, add, ring, out, column=16 * block)
    release_tiles()


@kernel
def products_of_unit(unpacked, unit, x, n, ring):
    for side in range(2):
        group = 2 * unit + side
        tile_product(x.quantized, n, GROUP * group, unpacked, unit * UNPACKED_UNIT + 512 * side, ring, group % RING)


@kernel
def gemm_int8_amx_16x1(unpacked, units, minima, x, n, tokens, add, ring, out, column):
    """16 tokens with one block, as signed bytes.

    A product takes about 50 cycles from its tiles to memory, where vectors can read it, so the tiles run ahead.
    """
    acc = zero_tile_sums()
    for unit in range(min(LOOK_AHEAD, units)):
        products_of_unit(unpacked, unit, x, n, ring)
    for unit in range(units):
        if unit + LOOK_AHEAD < units:
            products_of_unit(unpacked, unit + LOOK_AHEAD, x, n, ring)
        for side in range(2):
            at, group = unit * UNPACKED_UNIT, 2 * unit + side
            d = load_half(unpacked, at + SCALES + 32 * side)
            acc = add_scaled_product(acc, ring, group % RING, d, x.scales, n // 16, group)
    min_acc = zero_tile_sums()
    if minima:
        for group in range(2 * units):
            m = load_half(unpacked, group // 2 * UNPACKED_UNIT + MINIMA + 32 * (group % 2))
            min_acc = add_minima(min_acc, m, x.minima, n // 16, group)
    store_tile_sums(ring, 0, acc)
    store_tile_sums(ring, 1, min_acc)
    for token in range(min(16, tokens)):
        write_row(load(ring, 0, 16 * token) + load(ring, 1, 16 * token), add, out, n + token, column)
