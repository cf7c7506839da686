"""Attention of prefill rows over one split on CPUs with AMX: both products by tiles of bfloat16.

    scores    (32, positions)  = queries (32, K')  .  keys           a line of keys: dimensions 2p, 2p+1 of 16 positions
    weights   (32, positions)  = e^(scores - their maximum)          rounded to bfloat16
    partial   (32, K')         = weights  .  values                  a line of values: positions 2p, 2p+1, 16 dimensions

Keys and values are packed into lines once for all queries of a task, 32 neighbouring tokens with the heads that share
them; then 32 queries at a time go through all three steps, so that their scores stay in the L1 cache.
Queries, weights, and keys and values that were int8 are rounded to bfloat16, each to 2^-8 of itself; `exp_approx` adds
2^-13 of a weight; sums are float32. The bits differ from those of decode rows (attention_decode.py), but whether a row
is one or the other does not depend on the rest of the batch. A float32 cache is not read this way.
Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    BLOCK_SIZE,
    KEY,
    VALUE,
    is_scaled,
    load_key,
    load_value,
    run_index,
)
from nano_llama.vol3_engine.cpu.kernels.online_softmax import LOWEST
from nano_llama.vol3_engine.cpu.simd.amx import configure_tiles, release_tiles
from nano_llama.vol3_engine.cpu.simd.amx_bf16 import BF16_TILES, TILE_PAIRS, gemm_tiles_bf16
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    exp_approx,
    load,
    maximum,
    pack_bfloat_pairs,
    reduce_add,
    reduce_max,
    select_first,
    splat,
    store,
    store_bfloat,
)

QUERIES_AT_ONCE = 32  # two tiles of queries


class AmxOperands(NamedTuple):
    """A thread's scratch memory for the operands of tiles: bfloat16 as uint16. P = K'/2, padded to 16."""

    queries: np.ndarray  # (Q,2P)
    keys: np.ndarray  # (split/16 * P, 32)
    values: np.ndarray  # (K'/16 * split/2, 32)
    weights: np.ndarray  # (32,split)


def amx_operands(queries: int, width: int, split: int) -> AmxOperands:
    """width: K'; split: positions."""
    pairs = -(-width // (2 * TILE_PAIRS)) * TILE_PAIRS

    def bfloats(rows: int, columns: int) -> np.ndarray:
        return aligned(rows * columns, np.uint16).reshape(rows, columns)

    return AmxOperands(
        queries=bfloats(queries + QUERIES_AT_ONCE, 2 * pairs),
        keys=bfloats(split // BLOCK_SIZE * pairs, 32),
        values=bfloats(width // 16 * split // 2, 32),
        weights=bfloats(QUERIES_AT_ONCE, split),
    )


@kernel
def pack_keys(cache, layer, head, tables, first, blocks, operands):
    """Keys of blocks tables[first ...], as lines: pairs of dimensions interleaved, block after block."""
    noinline()
    pairs = operands.queries.shape[1] // 2
    for b in range(blocks):
        run = run_index(cache, layer, head, tables[first + b])
        scales = load(cache.scales, run, KEY, 0) if is_scaled(cache.keys) else splat(np.float32(1))
        for pair in range(cache.keys.shape[1] // 2):
            low, high = (load_key(cache, run, 2 * pair), load_key(cache, run, 2 * pair + 1))
            if is_scaled(cache.keys):
                low, high = low * scales, high * scales
            store(operands.keys, pairs * b + pair, 0, pack_bfloat_pairs(low, high))


@kernel
def load_value_or_zero(cache, run, slot, k, end):
    """Dimensions k ... k+15 of a value, zero from position `end` of the run on, where nothing was written yet."""
    if slot >= end:
        return splat(np.float32(0))
    if is_scaled(cache.values):
        scale = splat(cache.scales[run, VALUE, slot])
        return load_value(cache, run, slot, k) * scale
    return load_value(cache, run, slot, k)


@kernel
def pack_values(cache, layer, head, tables, first, end, depth, operands):
    """Values of positions 0 ... end-1 from block tables[first] on as lines of 16 dimensions; zeros up to `depth`."""
    noinline()
    zero = splat(0)
    for j in range(0, depth, 2):
        run = run_index(cache, layer, head, tables[min(first + j // BLOCK_SIZE, len(tables) - 1)])
        slot, left = j % BLOCK_SIZE, end - j
        for k in range(0, cache.values.shape[2], 16):
            to = (k // 16 * depth + j) // 2
            if left <= 0:
                store(operands.values, to, 0, zero)
            else:
                low = load_value_or_zero(cache, run, slot, k, slot + left)
                high = load_value_or_zero(cache, run, slot + 1, k, slot + left)
                store(operands.values, to, 0, pack_bfloat_pairs(low, high))


@kernel
def softmax_row_bf16(scores, i, visible, depth, weights, stats, row):
    """weights[i] = e^(s - m) of the first `visible` scores of row i, zeros up to `depth`; m and l go to stats[row]."""
    whole = visible // 16 * 16
    peak, sums = splat(LOWEST), splat(np.float32(0))
    for j in range(0, whole, 16):
        peak = maximum(load(scores, i, j), peak)
    if whole < visible:
        peak = maximum(select_first(load(scores, i, whole), visible - whole, LOWEST), peak)
    m = reduce_max(peak)
    peak = splat(m)
    for j in range(0, whole, 16):
        vector = exp_approx(load(scores, i, j) - peak)
        sums = sums + vector
        store_bfloat(weights, i, j, vector)
    if whole < visible:
        vector = select_first(exp_approx(load(scores, i, whole) - peak), visible - whole, np.float32(0))
        sums = sums + vector
        store_bfloat(weights, i, whole, vector)
    for j in range((visible + 15) // 16 * 16, depth, 16):
        store_bfloat(weights, i, j, splat(np.float32(0)))
    stats[row, 0], stats[row, 1] = m, reduce_add(sums)


@kernel
def softmax_rows_bf16(first, count, visible, group_size, depth, tile):
    """The same for queries first ... first+count-1, of which token 0 sees the first `visible` positions."""
    noinline()
    size = tile.scores.shape[1]
    for i in range(count):
        row = first + i
        row_visible = min(max(visible + row // group_size, 0), size)
        softmax_row_bf16(tile.scores, i, row_visible, depth, tile.amx.weights, tile.partial_stats, row)


@kernel
def attend_amx(cache, layer, head, tables, first, start, tokens, position, group_size, tile):
    """See `attend_split` in attention.py. The split begins at position `start`, its blocks at tables[first]."""
    noinline()
    operands, count, size = tile.amx, tokens * group_size, tile.scores.shape[1]
    end = min(position + tokens - start, size)
    depth = (end + 2 * TILE_PAIRS - 1) // (2 * TILE_PAIRS) * (2 * TILE_PAIRS)
    width, pairs = tile.partial.shape[1], operands.queries.shape[1] // 2
    pack_keys(cache, layer, head, tables, first, (end + BLOCK_SIZE - 1) // BLOCK_SIZE, operands)
    pack_values(cache, layer, head, tables, first, end, depth, operands)
    configure_tiles(BF16_TILES)
    for i in range(0, count, QUERIES_AT_ONCE):
        two_query_tiles = count - i > 16
        for j in range(0, end, 2 * BLOCK_SIZE):
            gemm_tiles_bf16(
                operands.queries[i:], 0, lines=operands.keys[j // BLOCK_SIZE * pairs :], pairs=pairs, out=tile.scores,
                column=j, two_row_tiles=two_query_tiles, two_blocks=True, accumulate=False,
            )  # fmt: skip
        softmax_rows_bf16(
            first=i, count=min(QUERIES_AT_ONCE, count - i), visible=position + 1 - start, group_size=group_size,
            depth=depth, tile=tile,
        )  # fmt: skip
        for k in range(0, width, 32):
            gemm_tiles_bf16(
                operands.weights, 0, lines=operands.values[k // 32 * depth :], pairs=depth // 2, out=tile.partial[i:],
                column=k, two_row_tiles=two_query_tiles, two_blocks=k + 16 < width, accumulate=False,
            )  # fmt: skip
    release_tiles()
