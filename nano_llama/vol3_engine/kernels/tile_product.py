"""Products with quantized weights by tiles: 16 tokens with one block at a time, on processors with AMX.

The same steps in the same order as dot_product.py, so the same bits. Not here: the tile words (amx.py).
Tests: tests/vol3/kernels/test_linear.py.
"""

from numba import njit

from nano_llama.vol3_engine.kernels.amx import add_minima, add_product, no_totals, tile_product, token_total
from nano_llama.vol3_engine.kernels.dot_product import put
from nano_llama.vol3_engine.kernels.pack import GROUP
from nano_llama.vol3_engine.kernels.simd import load_half
from nano_llama.vol3_engine.kernels.unpacked import MINIMA, SCALES, UNPACKED


@njit
def sixteen_tokens_one_block(scratch, units, minima, x, n, tokens, product, add, out, column):
    """scratch: the block as signed bytes; product: room for 2 x 256 sums."""
    totals = no_totals()
    for unit in range(units):
        for side in range(2):
            at, group = unit * UNPACKED, 2 * unit + side
            sums = product[side]
            tile_product(x.quantized, n, GROUP * group, scratch, at + 512 * side, sums)
            totals = add_product(totals, sums, load_half(scratch, at + SCALES + 32 * side), x.scales, n, group)
            if minima:
                totals = add_minima(totals, load_half(scratch, at + MINIMA + 32 * side), x.minima, n, group)
    for token in range(16):
        if token < tokens:
            put(token_total(totals, token), add, out, n + token, column)
