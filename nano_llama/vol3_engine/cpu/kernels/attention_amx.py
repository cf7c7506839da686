"""One part of attention for tokens of prompts on processors with AMX: both products by tiles of bfloat16.

    scores    (32, positions)  = queries (32, K')  .  keys           a line of keys: dimensions 2p, 2p+1 of 16 positions
    weights   (32, positions)  = e^(scores - their maximum)          rounded to bfloat16
    sums      (32, K')         = weights  .  values                  a line of values: positions 2p, 2p+1, 16 dimensions

Keys and values become lines once for all queries of a task, 32 neighbouring tokens with the heads that share them;
then 32 queries at a time go through all three steps, so that their scores stay in the nearest cache.
Queries, weights, and keys and values that were int8 are rounded to bfloat16, each to 2^-8 of itself; `exp_roughly` adds
2^-13 of a weight; sums are float32. Attention.py computes otherwise: whose token it is decides, never its company.
Caches in float32 are not read this way. Not here: parts together (attention.py).
Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.jit.jit import keep_apart, kernel
from nano_llama.vol3_engine.cpu.kernels.gemm_bf16_amx import PAIRS, product_of_tiles
from nano_llama.vol3_engine.cpu.kernels.kv_cache import POSITIONS, is_scaled, key_of, run_of, value_of
from nano_llama.vol3_engine.cpu.kernels.pack import aligned
from nano_llama.vol3_engine.cpu.simd.amx import configure_tiles, release_tiles
from nano_llama.vol3_engine.cpu.simd.amx_bf16 import BF16_TILES
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    bfloat_pairs,
    exp_roughly,
    first_lanes,
    largest,
    load,
    maximum,
    splat,
    store,
    store_bfloat,
    total,
)

ROWS = 32  # queries that go through the three steps together
LOWEST = np.float32(-1e30)  # the maximum of nothing


class Lines(NamedTuple):
    """A thread's room for the operands of tiles: uint16 that are bfloat16. P = K'/2 and padding to 16."""

    queries: np.ndarray  # (Q,2P)
    keys: np.ndarray  # (part/16 * P, 32)
    values: np.ndarray  # (K'/16 * part/2, 32)
    weights: np.ndarray  # (32,part)


def lines_for(queries: int, width: int, part: int) -> Lines:
    """width: K'; part: positions."""
    pairs = -(-width // (2 * PAIRS)) * PAIRS

    def bfloats(rows: int, columns: int) -> np.ndarray:
        return aligned(rows * columns, np.uint16).reshape(rows, columns)

    return Lines(
        bfloats(queries + ROWS, 2 * pairs),
        bfloats(part // POSITIONS * pairs, 32),
        bfloats(width // 16 * part // 2, 32),
        bfloats(ROWS, part),
    )


@kernel
def lines_of_keys(cache, layer, head, table, first, blocks, lines):
    """Keys of blocks table[first ...], pairs of dimensions in turn, a block after the other."""
    keep_apart()
    pairs = lines.queries.shape[1] // 2
    for b in range(blocks):
        run = run_of(cache, layer, head, table[first + b])
        scales = load(cache.scales, run, 0, 0) if is_scaled(cache.keys) else splat(np.float32(1))
        for pair in range(cache.keys.shape[1] // 2):
            low, high = (key_of(cache, run, 2 * pair), key_of(cache, run, 2 * pair + 1))
            if is_scaled(cache.keys):
                low, high = low * scales, high * scales
            store(lines.keys, pairs * b + pair, 0, bfloat_pairs(low, high))


@kernel
def value_before(cache, run, slot, k, end):
    """Dimensions k ... k+15 of a value, zero from position `end` of the run on: who knows what lies there."""
    if slot >= end:
        return splat(np.float32(0))
    if is_scaled(cache.values):
        scale = splat(cache.scales[run, 1, slot])
        return value_of(cache, run, slot, k) * scale
    return value_of(cache, run, slot, k)


@kernel
def lines_of_values(cache, layer, head, table, first, end, depth, lines):
    """Values of positions 0 ... end-1 from block table[first] on, zeros up to `depth`; 16 dimensions after others."""
    keep_apart()
    nothing = splat(0)
    for j in range(0, depth, 2):
        run = run_of(cache, layer, head, table[min(first + j // POSITIONS, len(table) - 1)])
        slot, left = j % POSITIONS, end - j
        for k in range(0, cache.values.shape[2], 16):
            to = (k // 16 * depth + j) // 2
            if left <= 0:
                store(lines.values, to, 0, nothing)
            else:
                low = value_before(cache, run, slot, k, slot + left)
                high = value_before(cache, run, slot + 1, k, slot + left)
                store(lines.values, to, 0, bfloat_pairs(low, high))


@kernel
def weights_of_row(scores, i, seen, depth, weights, stats, row):
    """weights[i] = e^(s - m) of the first `seen` scores of row i, zeros up to `depth`; m and l go to stats[row]."""
    whole = seen // 16 * 16
    peak, sums = splat(LOWEST), splat(np.float32(0))
    for j in range(0, whole, 16):
        peak = maximum(load(scores, i, j), peak)
    if whole < seen:
        peak = maximum(first_lanes(load(scores, i, whole), seen - whole, LOWEST), peak)
    m = largest(peak)
    peak = splat(m)
    for j in range(0, whole, 16):
        vector = exp_roughly(load(scores, i, j) - peak)
        sums = sums + vector
        store_bfloat(weights, i, j, vector)
    if whole < seen:
        vector = first_lanes(exp_roughly(load(scores, i, whole) - peak), seen - whole, np.float32(0))
        sums = sums + vector
        store_bfloat(weights, i, whole, vector)
    for j in range((seen + 15) // 16 * 16, depth, 16):
        store_bfloat(weights, i, j, splat(np.float32(0)))
    stats[row, 0], stats[row, 1] = m, total(sums)


@kernel
def weights_of_rows(first, count, visible, group_size, depth, tile):
    """The same for queries first ... first+count-1; the part's first `visible` positions are seen by token 0."""
    keep_apart()
    part = tile.scores.shape[1]
    for i in range(count):
        row = first + i
        seen = min(max(visible + row // group_size, 0), part)
        weights_of_row(tile.scores, i, seen, depth, tile.lines.weights, tile.part_stats, row)


@kernel
def attend_by_tiles(cache, layer, head, table, first, start, position, tokens, group_size, tile):
    """`attend_part` for tokens of a prompt. The part begins at position `start`, its blocks at table[first]."""
    keep_apart()
    lines, count, part = tile.lines, tokens * group_size, tile.scores.shape[1]
    end = min(position + tokens - start, part)
    depth = (end + 2 * PAIRS - 1) // (2 * PAIRS) * (2 * PAIRS)
    width, pairs = tile.part.shape[1], lines.queries.shape[1] // 2
    lines_of_keys(cache, layer, head, table, first, (end + POSITIONS - 1) // POSITIONS, lines)
    lines_of_values(cache, layer, head, table, first, end, depth, lines)
    configure_tiles(BF16_TILES)
    for i in range(0, count, ROWS):
        two_tiles = count - i > 16
        for j in range(0, end, 2 * POSITIONS):
            keys = lines.keys[j // POSITIONS * pairs :]
            product_of_tiles(lines.queries[i:], 0, two_tiles, keys, pairs, True, False, tile.scores, j)
        weights_of_rows(i, min(ROWS, count - i), position + 1 - start, group_size, depth, tile)
        for k in range(0, width, 32):
            values = lines.values[k // 32 * depth :]
            product_of_tiles(lines.weights, 0, two_tiles, values, depth // 2, k + 16 < width, False, tile.part[i:], k)
    release_tiles()
