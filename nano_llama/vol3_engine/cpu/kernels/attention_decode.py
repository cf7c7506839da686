"""Attention's two products for the few query heads of one token, straight from the cache: each number is read once.

    scores   (rows, positions)   16 positions are lanes; rows x 4 blocks of running sums
    sums     (rows, K')          16 dimensions are lanes; rows x 64 dimensions of running sums

Decoding is this, and it waits for memory: so while keys are at work the same blocks' values are asked for, and while
values are at work the keys that come next. Each sum runs in the order of attention.py, so the bits are its bits.
Not here: softmax, parts (attention.py). Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from nano_llama.vol3_engine.cpu.isa import has_room
from nano_llama.vol3_engine.cpu.jit.jit import keep_apart, kernel
from nano_llama.vol3_engine.cpu.kernels.kv_cache import POSITIONS, key_of, run_of, value_of
from nano_llama.vol3_engine.cpu.simd.accumulators import add_to_rows, store_rows
from nano_llama.vol3_engine.cpu.simd.intrinsics import prefetch

ROOM = has_room()  # for rows x 4 vectors of running sums, elsewhere rows x 1


@kernel
def few_scores(none, i, cache, layer, head, table, first, end, tile):
    """tile.scores of queries i ... with positions 0 ... end-1 of a part whose blocks begin at table[first].

    none: `no_sums`, of as many rows as there are queries.
    """
    keep_apart()
    blocks = (end + POSITIONS - 1) // POSITIONS
    b = 0
    while ROOM and b + 4 <= blocks:
        one, two = run_of(cache, layer, head, table[first + b]), run_of(cache, layer, head, table[first + b + 1])
        three, four = run_of(cache, layer, head, table[first + b + 2]), run_of(cache, layer, head, table[first + b + 3])
        a = c = d = e = none
        for k in range(tile.queries.shape[1]):
            at = POSITIONS * k  # a block's values are as long as its keys
            prefetch(cache.values, one, 0, at)
            prefetch(cache.values, two, 0, at)
            prefetch(cache.values, three, 0, at)
            prefetch(cache.values, four, 0, at)
            a = add_to_rows(a, key_of(cache, one, k), tile.queries, i, k)
            c = add_to_rows(c, key_of(cache, two, k), tile.queries, i, k)
            d = add_to_rows(d, key_of(cache, three, k), tile.queries, i, k)
            e = add_to_rows(e, key_of(cache, four, k), tile.queries, i, k)
        store_rows(tile.scores, i, POSITIONS * b, a)
        store_rows(tile.scores, i, POSITIONS * b + 16, c)
        store_rows(tile.scores, i, POSITIONS * b + 32, d)
        store_rows(tile.scores, i, POSITIONS * b + 48, e)
        b += 4
    while b < blocks:
        one, a = run_of(cache, layer, head, table[first + b]), none
        for k in range(tile.queries.shape[1]):
            prefetch(cache.values, one, 0, POSITIONS * k)
            a = add_to_rows(a, key_of(cache, one, k), tile.queries, i, k)
        store_rows(tile.scores, i, POSITIONS * b, a)
        b += 1


@kernel
def few_sums(none, i, cache, layer, head, table, first, end, tile, next_head, next_first):
    """tile.part of queries i ...: weights . values over positions 0 ... end-1 of the part.

    The keys of next_head in the blocks from table[next_first] on are asked for meanwhile.
    """
    keep_apart()
    k, width = 0, tile.part.shape[1]
    while ROOM and k + 64 <= width:
        a = c = d = e = none
        for start in range(0, end, POSITIONS):
            b = start // POSITIONS
            run = run_of(cache, layer, head, table[first + b])
            coming = run_of(cache, layer, next_head, table[min(next_first + b, len(table) - 1)])
            for slot in range(min(POSITIONS, end - start)):
                j = start + slot
                prefetch(cache.keys, coming, 0, slot * width)
                prefetch(cache.keys, coming, 0, slot * width + width // 2)
                a = add_to_rows(a, value_of(cache, run, slot, k), tile.scores, i, j)
                c = add_to_rows(c, value_of(cache, run, slot, k + 16), tile.scores, i, j)
                d = add_to_rows(d, value_of(cache, run, slot, k + 32), tile.scores, i, j)
                e = add_to_rows(e, value_of(cache, run, slot, k + 48), tile.scores, i, j)
        store_rows(tile.part, i, k, a)
        store_rows(tile.part, i, k + 16, c)
        store_rows(tile.part, i, k + 32, d)
        store_rows(tile.part, i, k + 48, e)
        k += 64
    while k < width:
        a = none
        for start in range(0, end, POSITIONS):
            b = start // POSITIONS
            run = run_of(cache, layer, head, table[first + b])
            coming = run_of(cache, layer, next_head, table[min(next_first + b, len(table) - 1)])
            for slot in range(min(POSITIONS, end - start)):
                prefetch(cache.keys, coming, 0, slot * width + k)
                a = add_to_rows(a, value_of(cache, run, slot, k), tile.scores, i, start + slot)
        store_rows(tile.part, i, k, a)
        k += 16
