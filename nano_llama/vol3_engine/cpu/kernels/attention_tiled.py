"""Attention of a tile of queries over one split: keys and values are widened to floats once for all queries.

    scores    4 queries x 64 positions    16 accumulators of 16 lanes; 4 x 16 where registers hold no more
    values    4 queries x 64 dimensions   likewise

Every sum runs in ascending order, one fused multiply-add per term, so each query's bits are its own.
Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

import numpy as np

from nano_llama.vol3_engine.cpu.isa import has_32_vector_registers
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    BLOCK_SIZE,
    KEY,
    VALUE,
    apply_scales,
    prefetch_keys,
    prefetch_values,
    widen_keys,
    widen_values,
)
from nano_llama.vol3_engine.cpu.kernels.online_softmax import SPLIT_SIZE, softmax_row
from nano_llama.vol3_engine.cpu.simd.accumulators import fma_rows, load_rows, store_rows, zeros
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, splat, store

CHUNK = 64  # positions whose keys, or values, are widened together: they stay in the L1 cache
HAS_32_REGISTERS = has_32_vector_registers()


@kernel
def scores_4x64(queries, i, keys, scores, column):
    """scores[i : i + 4, column : column + 64] = queries . keys."""
    noinline()
    a = b = c = d = zeros(4)
    for k in range(queries.shape[1]):
        a = fma_rows(a, load(keys, 0, k, 0), queries, i, k)
        b = fma_rows(b, load(keys, 1, k, 0), queries, i, k)
        c = fma_rows(c, load(keys, 2, k, 0), queries, i, k)
        d = fma_rows(d, load(keys, 3, k, 0), queries, i, k)
    store_rows(scores, i, column, a)
    store_rows(scores, i, column + 16, b)
    store_rows(scores, i, column + 32, c)
    store_rows(scores, i, column + 48, d)


@kernel
def scores_4x16(queries, i, keys, b, scores, column):
    """The same for one block of keys, keys[b]."""
    noinline()
    a = zeros(4)
    for k in range(queries.shape[1]):
        a = fma_rows(a, load(keys, b, k, 0), queries, i, k)
    store_rows(scores, i, column, a)


@kernel
def add_weighted_values(weights, i, column, values, positions, out):
    """out[i : i + 4] += weights[i : i + 4, column : column + positions] . values."""
    noinline()
    k, width, four = 0, values.shape[1], zeros(4)
    while HAS_32_REGISTERS and k + 64 <= width:
        a, b = load_rows(four, out, i, k), load_rows(four, out, i, k + 16)
        c, d = load_rows(four, out, i, k + 32), load_rows(four, out, i, k + 48)
        for j in range(positions):
            a = fma_rows(a, load(values, j, k), weights, i, column + j)
            b = fma_rows(b, load(values, j, k + 16), weights, i, column + j)
            c = fma_rows(c, load(values, j, k + 32), weights, i, column + j)
            d = fma_rows(d, load(values, j, k + 48), weights, i, column + j)
        store_rows(out, i, k, a)
        store_rows(out, i, k + 16, b)
        store_rows(out, i, k + 32, c)
        store_rows(out, i, k + 48, d)
        k += 64
    while k < width:
        a = load_rows(four, out, i, k)
        for j in range(positions):
            a = fma_rows(a, load(values, j, k), weights, i, column + j)
        store_rows(out, i, k, a)
        k += 16


@kernel
def visible_in_split(start, visible):
    """How many positions of the split from `start` on are among the first `visible` of the sequence."""
    return min(max(visible - start, 0), SPLIT_SIZE)


@kernel
def attend_tiled(cache, layer, head, tables, first, start, tokens, position, group_size, tile):
    """See `attend_split` in attention.py. The split begins at position `start`, its blocks at tables[first]."""
    count = tokens * group_size
    end = visible_in_split(start, position + tokens)  # what the last token sees
    for chunk in range(0, end, CHUNK):
        blocks = min(CHUNK // BLOCK_SIZE, (end - chunk + BLOCK_SIZE - 1) // BLOCK_SIZE)
        block = first + chunk // BLOCK_SIZE
        prefetch_chunk(cache, layer, head, tables, block, positions=end - chunk)
        for b in range(blocks):
            widen_keys(cache, layer, head, tables[block + b], tile.keys, b)
        for i in range(0, count, 4):
            last = min(i + 3, count - 1) // group_size  # the latest token among the four
            if visible_in_split(start, position + last + 1) <= chunk:
                continue
            if HAS_32_REGISTERS and blocks == CHUNK // BLOCK_SIZE:
                scores_4x64(tile.queries, i, tile.keys, tile.scores, chunk)
            else:
                for b in range(blocks):
                    scores_4x16(tile.queries, i, tile.keys, b, tile.scores, chunk + BLOCK_SIZE * b)
    zero = splat(np.float32(0))
    apply_scales(cache, KEY, layer, head, tables, first, end, tile.scores, range(count))
    for i in range(count):
        visible = visible_in_split(start, position + i // group_size + 1)
        softmax_row(tile.scores, i, visible, end, tile.partial_stats)
    apply_scales(cache, VALUE, layer, head, tables, first, end, tile.scores, range(count))
    for i in range((count + 3) // 4 * 4):
        for k in range(0, tile.partial.shape[1], 16):
            store(tile.partial, i, k, zero)
    for chunk in range(0, end, CHUNK):
        positions = min(CHUNK, end - chunk)
        for b in range((positions + BLOCK_SIZE - 1) // BLOCK_SIZE):
            widen_values(cache, layer, head, tables[first + chunk // BLOCK_SIZE + b], tile.values, b)
        for i in range(0, count, 4):
            last = min(i + 3, count - 1) // group_size
            needed = min(visible_in_split(start, position + last + 1) - chunk, positions)
            if needed > 0:
                add_weighted_values(tile.scores, i, chunk, tile.values, needed, tile.partial)


@kernel
def prefetch_chunk(cache, layer, head, tables, first, positions):
    """Prefetch this chunk's values and the next chunk's keys while this chunk's keys are used.

    positions: how many of the split are left, this chunk included.
    """
    blocks = CHUNK // BLOCK_SIZE
    for b in range(2 * blocks):
        if b * BLOCK_SIZE < positions:
            block = tables[first + b]
            if b < blocks:
                prefetch_values(cache, layer, head, block)
            else:
                prefetch_keys(cache, layer, head, block)
