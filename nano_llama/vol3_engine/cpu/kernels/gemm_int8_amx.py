"""Products with quantized weights by tiles: 16 tokens with one block at a time, on processors with AMX.

The same steps in the same order as gemm_int8.py, so the same bits. Not here: the tile words (amx.py).
Tests: tests/vol3/cpu/kernels/test_linear.py.
"""

from nano_llama.vol3_engine.cpu.jit.jit import kernel
from nano_llama.vol3_engine.cpu.kernels.gemm_int8 import put
from nano_llama.vol3_engine.cpu.kernels.pack import GROUP
from nano_llama.vol3_engine.cpu.kernels.unpack import MINIMA, SCALES, UNPACKED
from nano_llama.vol3_engine.cpu.simd.amx import add_minima, add_product, no_totals, store_totals, tile_product
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, load_half

LOOK_AHEAD = 1  # units whose products are under way while those of an earlier one are scaled and added up
RING = 8  # products that have room: two a unit, for LOOK_AHEAD + 1 units and one more, a power of two


@kernel
def products_of_unit(scratch, unit, x, n, ring):
    for side in range(2):
        group = 2 * unit + side
        tile_product(x.quantized, n, GROUP * group, scratch, unit * UNPACKED + 512 * side, ring, group % RING)


@kernel
def sixteen_tokens_one_block(scratch, units, minima, x, n, tokens, ring, add, out, column):
    """scratch: the block as signed bytes; ring: room for RING products.

    A product takes some 50 cycles from its tiles to memory, where vectors can read it; so the tiles run ahead.
    """
    totals = no_totals()
    for unit in range(min(LOOK_AHEAD, units)):
        products_of_unit(scratch, unit, x, n, ring)
    for unit in range(units):
        if unit + LOOK_AHEAD < units:
            products_of_unit(scratch, unit + LOOK_AHEAD, x, n, ring)
        for side in range(2):
            at, group = unit * UNPACKED, 2 * unit + side
            d = load_half(scratch, at + SCALES + 32 * side)
            totals = add_product(totals, ring, group % RING, d, x.scales, n // 16, group)
    least = no_totals()
    if minima:
        for group in range(2 * units):
            m = load_half(scratch, group // 2 * UNPACKED + MINIMA + 32 * (group % 2))
            least = add_minima(least, m, x.minima, n // 16, group)
    store_totals(ring, 0, totals)
    store_totals(ring, 1, least)
    for token in range(min(16, tokens)):
        put(load(ring, 0, 16 * token) + load(ring, 1, 16 * token), add, out, n + token, column)
