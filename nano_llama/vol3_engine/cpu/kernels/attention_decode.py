"""Attention of one token's few query heads over one split, straight from the cache: each number is read once.

    scores    (rows, positions)   16 positions are lanes; rows x 4 blocks of accumulators
    values    (rows, K')          16 dimensions are lanes; rows x 64 dimensions of accumulators

Decoding is bound by memory: while keys are used the values of the same blocks are prefetched, and while values are used
the keys that come next. Each sum runs in the order of attention_tiled.py, so the bits are the same.
Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from nano_llama.vol3_engine.cpu.isa import has_32_vector_registers
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    BLOCK_SIZE,
    KEY,
    VALUE,
    apply_scales,
    load_key,
    load_value,
    run_index,
)
from nano_llama.vol3_engine.cpu.kernels.online_softmax import softmax_row
from nano_llama.vol3_engine.cpu.simd.accumulators import fma_rows, num_rows, store_rows, zeros
from nano_llama.vol3_engine.cpu.simd.intrinsics import prefetch

MAX_DECODE_HEADS = 8  # query heads of a key/value head up to which this is faster than widening
HAS_32_REGISTERS = has_32_vector_registers()  # enough for rows x 4 accumulators, elsewhere rows x 1


@kernel
def attend_decode(cache, layer, head, tables, first, end, group_size, tile, next_head, next_block):
    """See `attend_split` in attention.py: positions 0 ... end-1 of the split whose blocks begin at tables[first]."""
    for i in range(0, group_size, 4):
        rows = group_size - i
        if rows == 1:
            attend_rows(zeros(1), i, cache, layer, head, tables, first, end, tile, next_head, next_block)
        elif rows == 2:
            attend_rows(zeros(2), i, cache, layer, head, tables, first, end, tile, next_head, next_block)
        elif rows == 3:
            attend_rows(zeros(3), i, cache, layer, head, tables, first, end, tile, next_head, next_block)
        else:
            attend_rows(zeros(4), i, cache, layer, head, tables, first, end, tile, next_head, next_block)


@kernel
def attend_rows(zero, i, cache, layer, head, tables, first, end, tile, next_head, next_block):
    """As many queries, from query i on, as `zero` has rows."""
    noinline()
    decode_scores(zero, i, cache, layer, head, tables, first, end, tile)
    rows = range(i, i + num_rows(zero))
    apply_scales(cache, KEY, layer, head, tables, first, end, tile.scores, rows)
    for row in rows:
        softmax_row(tile.scores, row, end, end, tile.partial_stats)
    apply_scales(cache, VALUE, layer, head, tables, first, end, tile.scores, rows)
    decode_values(zero, i, cache, layer, head, tables, first, end, tile, next_head, next_block)


@kernel
def decode_scores(zero, i, cache, layer, head, tables, first, end, tile):
    """tile.scores[i + r] = queries . keys, for as many rows r as `zero` has."""
    noinline()
    blocks = (end + BLOCK_SIZE - 1) // BLOCK_SIZE
    b = 0
    while HAS_32_REGISTERS and b + 4 <= blocks:
        run0 = run_index(cache, layer, head, tables[first + b])
        run1 = run_index(cache, layer, head, tables[first + b + 1])
        run2 = run_index(cache, layer, head, tables[first + b + 2])
        run3 = run_index(cache, layer, head, tables[first + b + 3])
        acc0 = acc1 = acc2 = acc3 = zero
        for k in range(tile.queries.shape[1]):
            at = BLOCK_SIZE * k  # a block's values are as long as its keys
            prefetch(cache.values, run0, 0, at)
            prefetch(cache.values, run1, 0, at)
            prefetch(cache.values, run2, 0, at)
            prefetch(cache.values, run3, 0, at)
            acc0 = fma_rows(acc0, load_key(cache, run0, k), tile.queries, i, k)
            acc1 = fma_rows(acc1, load_key(cache, run1, k), tile.queries, i, k)
            acc2 = fma_rows(acc2, load_key(cache, run2, k), tile.queries, i, k)
            acc3 = fma_rows(acc3, load_key(cache, run3, k), tile.queries, i, k)
        store_rows(tile.scores, i, BLOCK_SIZE * b, acc0)
        store_rows(tile.scores, i, BLOCK_SIZE * b + 16, acc1)
        store_rows(tile.scores, i, BLOCK_SIZE * b + 32, acc2)
        store_rows(tile.scores, i, BLOCK_SIZE * b + 48, acc3)
        b += 4
    while b < blocks:
        run, acc = run_index(cache, layer, head, tables[first + b]), zero
        for k in range(tile.queries.shape[1]):
            prefetch(cache.values, run, 0, BLOCK_SIZE * k)
            acc = fma_rows(acc, load_key(cache, run, k), tile.queries, i, k)
        store_rows(tile.scores, i, BLOCK_SIZE * b, acc)
        b += 1


@kernel
def decode_values(zero, i, cache, layer, head, tables, first, end, tile, next_head, next_block):
    """tile.partial[i + r] = weights . values, while the keys of next_head from tables[next_block] on are prefetched."""
    noinline()
    k, width = 0, tile.partial.shape[1]
    while HAS_32_REGISTERS and k + 64 <= width:
        acc0 = acc1 = acc2 = acc3 = zero
        for start in range(0, end, BLOCK_SIZE):
            b = start // BLOCK_SIZE
            run = run_index(cache, layer, head, tables[first + b])
            next_run = run_index(cache, layer, next_head, tables[min(next_block + b, len(tables) - 1)])
            for slot in range(min(BLOCK_SIZE, end - start)):
                j = start + slot
                prefetch(cache.keys, next_run, 0, slot * width)
                prefetch(cache.keys, next_run, 0, slot * width + width // 2)
                acc0 = fma_rows(acc0, load_value(cache, run, slot, k), tile.scores, i, j)
                acc1 = fma_rows(acc1, load_value(cache, run, slot, k + 16), tile.scores, i, j)
                acc2 = fma_rows(acc2, load_value(cache, run, slot, k + 32), tile.scores, i, j)
                acc3 = fma_rows(acc3, load_value(cache, run, slot, k + 48), tile.scores, i, j)
        store_rows(tile.partial, i, k, acc0)
        store_rows(tile.partial, i, k + 16, acc1)
        store_rows(tile.partial, i, k + 32, acc2)
        store_rows(tile.partial, i, k + 48, acc3)
        k += 64
    while k < width:
        acc = zero
        for start in range(0, end, BLOCK_SIZE):
            b = start // BLOCK_SIZE
            run = run_index(cache, layer, head, tables[first + b])
            next_run = run_index(cache, layer, next_head, tables[min(next_block + b, len(tables) - 1)])
            for slot in range(min(BLOCK_SIZE, end - start)):
                prefetch(cache.keys, next_run, 0, slot * width + k)
                acc = fma_rows(acc, load_value(cache, run, slot, k), tile.scores, i, start + slot)
        store_rows(tile.partial, i, k, acc)
        k += 16
