"""Paged attention: queries against the cached positions of their text, block by block, with an online softmax.

Positions are cut into parts of 256. For each part, with scores s_j = q . k_j over the positions that a query may see,

    m = max s_j,   l = sum e^(s_j - m),   o = sum e^(s_j - m) v_j

and parts are folded together in ascending order (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022):

    M = max(m, m'),   l = l e^(m - M) + l' e^(m' - M),   o = o e^(m - M) + o' e^(m' - M);      the result is o / l

Where a part begins depends on the position alone, and every sum runs in ascending order of what it sums over; so a
row's bits depend neither on its neighbours, nor on how a prompt was cut, nor on which thread took which part.

Queries that share a key/value head (GQA) and neighbouring tokens are taken 4 at a time against 64 positions, as
16 running sums of 16 lanes, or against 16 where registers hold no more; the keys and values of these 64 positions are
widened to floats once for all of them.
Not here: which thread does what (step.py), the cache's layout (kv_cache.py).
Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.isa import chosen_tier, has_room
from nano_llama.vol3_engine.cpu.jit.jit import keep_apart, kernel
from nano_llama.vol3_engine.cpu.kernels.attention_amx import LOWEST, Lines, attend_by_tiles, lines_for
from nano_llama.vol3_engine.cpu.kernels.attention_decode import few_scores, few_sums
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    DTYPES,
    POSITIONS,
    KVCache,
    fetch_keys,
    fetch_values,
    is_exact,
    is_scaled,
    keys_plain,
    padded,
    run_of,
    values_plain,
    widen_keys,
    widen_values,
)
from nano_llama.vol3_engine.cpu.kernels.pack import aligned
from nano_llama.vol3_engine.cpu.simd.accumulators import add_to_rows, load_rows, no_sums, rows_of, store_rows
from nano_llama.vol3_engine.cpu.simd.intrinsics import (
    exp,
    first_lanes,
    fma,
    lane,
    largest,
    load,
    maximum,
    splat,
    store,
    store_bfloat,
    total,
)

PART = 256  # positions
PIECE = 64  # positions whose keys, or values, are widened at once: they stay in the nearest cache
FEW = 8  # query heads of one token up to which their products take keys and values straight from the cache
TILES = chosen_tier() == "amx"
ROOM = has_room()  # for 4 queries with 64 positions, or dimensions, elsewhere with 16
QUERIES = 48  # that a tile aims at: tokens x query heads of one key/value head,
QUERIES_OF_PROMPTS = 96 if TILES else QUERIES  # and where the tokens are of a prompt


class Tile(NamedTuple):
    """A thread's room for one tile of Q queries."""

    queries: np.ndarray  # (Q,K') float32
    scores: np.ndarray  # (Q,PART): then their exponentials
    part: np.ndarray  # (Q,K'): o of a part
    part_stats: np.ndarray  # (Q,2): its m and l
    sums: np.ndarray  # (Q,K'): o of the parts so far
    stats: np.ndarray  # (Q,2): their m and l
    keys: np.ndarray  # (PIECE/16,K',16) widened
    values: np.ndarray  # (PIECE,K') widened
    lines: Lines
    narrow: np.ndarray  # (K',) of the cache's type


def tile_for(group_size: int, head_dim: int, dtype: str) -> Tile:
    """group_size: query heads of one key/value head."""
    queries, width = -(-max(QUERIES_OF_PROMPTS, group_size) // 32) * 32, padded(head_dim)

    def floats(*shape: int) -> np.ndarray:
        return aligned(int(np.prod(shape)), np.float32).reshape(shape)

    return Tile(
        floats(queries, width),
        floats(queries, PART),
        floats(queries, width),
        floats(queries, 2),
        floats(queries, width),
        floats(queries, 2),
        floats(PIECE // POSITIONS, width, POSITIONS),
        floats(PIECE, width),
        lines_for(queries, width, PART),
        aligned(width, DTYPES[dtype]),
    )


def tokens_of_tile(group_size: int, of_prompt: bool) -> int:
    """Neighbouring tokens that go into one tile."""
    return max(1, (QUERIES_OF_PROMPTS if of_prompt else QUERIES) // group_size)


def attention_plain(
    q: np.ndarray, position: int, cache: KVCache, layer: int, head: int, table: list[int]
) -> np.ndarray:
    """q (T,M,K) of the tokens position, position + 1, ... -> (T,M,K): the plain twin, in float64."""
    T, _, K = q.shape
    keys, values = (f(cache, layer, head, table)[: position + T, :K] for f in (keys_plain, values_plain))
    scores = np.einsum("tmk,sk->tms", q.astype(np.float64), keys) / np.sqrt(K)
    unseen = np.arange(position + T) > position + np.arange(T)[:, None]  # (T,S)
    scores = np.where(unseen[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("tms,sk->tmk", weights / weights.sum(-1, keepdims=True), values)


# -- one part ---------------------------------------------------------------------------------------------------------


@kernel
def gather_queries(q, row, tokens, first_head, group_size, head_dim, tile):
    """Query t * group_size + m of the tile: head first_head + m of row + t, times 1 / sqrt(K)."""
    keep_apart()
    width = tile.queries.shape[1]
    factor = splat(np.float32(1) / np.sqrt(np.float32(head_dim)))
    for t in range(tokens):
        for m in range(group_size):
            for k in range(0, width, 16):
                vector = load(q, row + t, (first_head + m) * width + k)
                store(tile.queries, t * group_size + m, k, vector * factor)
                if TILES:
                    store_bfloat(tile.lines.queries, t * group_size + m, k, vector * factor)


@kernel
def four_queries_with_keys(queries, i, keys, scores, column):
    """scores[i ... i+3, column ... column+63] = queries . keys, one fused multiply-add a dimension, ascending."""
    keep_apart()
    a = b = c = d = no_sums(4)
    for k in range(queries.shape[1]):
        a = add_to_rows(a, load(keys, 0, k, 0), queries, i, k)
        b = add_to_rows(b, load(keys, 1, k, 0), queries, i, k)
        c = add_to_rows(c, load(keys, 2, k, 0), queries, i, k)
        d = add_to_rows(d, load(keys, 3, k, 0), queries, i, k)
    store_rows(scores, i, column, a)
    store_rows(scores, i, column + 16, b)
    store_rows(scores, i, column + 32, c)
    store_rows(scores, i, column + 48, d)


@kernel
def four_queries_with_one_block(queries, i, keys, b, scores, column):
    """The same for 16 positions."""
    keep_apart()
    a = no_sums(4)
    for k in range(queries.shape[1]):
        a = add_to_rows(a, load(keys, b, k, 0), queries, i, k)
    store_rows(scores, i, column, a)


@kernel
def four_queries_with_values(scores, i, column, values, positions, out):
    """out[i ... i+3] += weights . values over so many positions, ascending, from score column `column` on."""
    keep_apart()
    k, width, four = 0, values.shape[1], no_sums(4)
    while ROOM and k + 64 <= width:
        a, b = load_rows(four, out, i, k), load_rows(four, out, i, k + 16)
        c, d = load_rows(four, out, i, k + 32), load_rows(four, out, i, k + 48)
        for j in range(positions):
            a = add_to_rows(a, load(values, j, k), scores, i, column + j)
            b = add_to_rows(b, load(values, j, k + 16), scores, i, column + j)
            c = add_to_rows(c, load(values, j, k + 32), scores, i, column + j)
            d = add_to_rows(d, load(values, j, k + 48), scores, i, column + j)
        store_rows(out, i, k, a)
        store_rows(out, i, k + 16, b)
        store_rows(out, i, k + 32, c)
        store_rows(out, i, k + 48, d)
        k += 64
    while k < width:
        a = load_rows(four, out, i, k)
        for j in range(positions):
            a = add_to_rows(a, load(values, j, k), scores, i, column + j)
        store_rows(out, i, k, a)
        k += 16


@kernel
def softmax_row(scores, i, seen, filled, stats):
    """e^(s - m) of the first `seen` scores of a row, zeros up to `filled`; m and l go to stats[i]."""
    keep_apart()
    peak = splat(LOWEST)
    for j in range(0, seen, 16):
        peak = maximum(peak, first_lanes(load(scores, i, j), seen - j, LOWEST))
    m = largest(peak)
    sums, nothing = splat(np.float32(0)), splat(np.float32(0))
    for j in range(0, seen, 16):
        weights = first_lanes(exp(load(scores, i, j) - splat(m)), seen - j, np.float32(0))
        sums = sums + weights
        store(scores, i, j, weights)
    for j in range((seen + 15) // 16 * 16, filled, 16):
        store(scores, i, j, nothing)
    stats[i, 0], stats[i, 1] = m, total(sums)


@kernel
def seen_in(start, visible):
    """How many of the part's positions, which begins at `start`, are among the first `visible`."""
    return min(max(visible - start, 0), PART)


@kernel
def scale_scores(cache, which, layer, head, table, first, end, scores, rows):
    """Scores, or weights, of positions 0 ... end-1 times the scales of the keys (which = 0) or values (1)."""
    if is_scaled(cache.keys):
        for j in range(0, end, POSITIONS):
            scales = load(cache.scales, run_of(cache, layer, head, table[first + j // POSITIONS]), which, 0)
            for i in rows:
                store(scores, i, j, load(scores, i, j) * scales)


@kernel
def attend_few(none, i, cache, layer, head, table, first, end, tile, next_head, next_first):
    """`attend_part` for queries i ... of one token: the same bits, without widening. none: `no_sums`, one a query."""
    keep_apart()
    few_scores(none, i, cache, layer, head, table, first, end, tile)
    rows = range(i, i + rows_of(none))
    scale_scores(cache, 0, layer, head, table, first, end, tile.scores, rows)
    for row in rows:
        softmax_row(tile.scores, row, end, end, tile.part_stats)
    scale_scores(cache, 1, layer, head, table, first, end, tile.scores, rows)
    few_sums(none, i, cache, layer, head, table, first, end, tile, next_head, next_first)


@kernel
def attend_part(
    cache, layer, head, table, first_block, part, position, tokens, group_size, of_prompt, tile, next_head, next_first
):
    """The tile's queries, of `tokens` tokens from `position` on, against one part -> tile.part, tile.part_stats.

    table[first_block ...]: the text's blocks. of_prompt: whether the tokens are. It may be that next come the keys of
    next_head, from table[next_first] on.
    """
    keep_apart()
    start = part * PART
    first, count = first_block + start // POSITIONS, tokens * group_size
    end = seen_in(start, position + tokens)  # of the part's positions, as far as the last token sees
    if TILES and of_prompt and not is_exact(cache.keys):
        attend_by_tiles(cache, layer, head, table, first, start, position, tokens, group_size, tile)
        return
    if tokens == 1 and group_size <= FEW:
        for i in range(0, group_size, 4):
            rows = group_size - i
            if rows == 1:
                attend_few(no_sums(1), i, cache, layer, head, table, first, end, tile, next_head, next_first)
            elif rows == 2:
                attend_few(no_sums(2), i, cache, layer, head, table, first, end, tile, next_head, next_first)
            elif rows == 3:
                attend_few(no_sums(3), i, cache, layer, head, table, first, end, tile, next_head, next_first)
            else:
                attend_few(no_sums(4), i, cache, layer, head, table, first, end, tile, next_head, next_first)
        return
    for piece in range(0, end, PIECE):
        blocks = min(PIECE // POSITIONS, (end - piece + POSITIONS - 1) // POSITIONS)
        fetch_piece(cache, layer, head, table, first_block, start + piece, end - piece)
        for b in range(blocks):
            widen_keys(cache, layer, head, table[first + piece // POSITIONS + b], tile.keys, b)
        for i in range(0, count, 4):
            last = min(i + 3, count - 1) // group_size  # the latest token among the four
            if seen_in(start, position + last + 1) <= piece:
                continue
            if ROOM and blocks == PIECE // POSITIONS:
                four_queries_with_keys(tile.queries, i, tile.keys, tile.scores, piece)
            else:
                for b in range(blocks):
                    four_queries_with_one_block(tile.queries, i, tile.keys, b, tile.scores, piece + POSITIONS * b)
    nothing = splat(np.float32(0))
    scale_scores(cache, 0, layer, head, table, first, end, tile.scores, range(count))
    for i in range(count):
        softmax_row(tile.scores, i, seen_in(start, position + i // group_size + 1), end, tile.part_stats)
    scale_scores(cache, 1, layer, head, table, first, end, tile.scores, range(count))
    for i in range((count + 3) // 4 * 4):
        for k in range(0, tile.part.shape[1], 16):
            store(tile.part, i, k, nothing)
    for piece in range(0, end, PIECE):
        positions = min(PIECE, end - piece)
        for b in range((positions + POSITIONS - 1) // POSITIONS):
            widen_values(cache, layer, head, table[first + piece // POSITIONS + b], tile.values, b)
        for i in range(0, count, 4):
            last = min(i + 3, count - 1) // group_size
            needed = min(seen_in(start, position + last + 1) - piece, positions)
            if needed > 0:
                four_queries_with_values(tile.scores, i, piece, tile.values, needed, tile.part)


@kernel
def fetch_piece(cache, layer, head, table, first_block, position, left):
    """Ask for this piece's values and the next piece's keys, while this piece's keys are at work.

    left: positions of the part from here on.
    """
    blocks = PIECE // POSITIONS
    for b in range(2 * blocks):
        if b * POSITIONS < left:
            block = table[first_block + position // POSITIONS + b]
            if b < blocks:
                fetch_values(cache, layer, head, block)
            else:
                fetch_keys(cache, layer, head, block)


# -- parts together ---------------------------------------------------------------------------------------------------


@kernel
def forget(sums, stats, i):
    """No part yet."""
    for k in range(0, sums.shape[1], 16):
        store(sums, i, k, splat(np.float32(0)))
    stats[i, 0], stats[i, 1] = LOWEST, np.float32(0)


@kernel
def fold(sums, stats, i, part, part_stats, j):
    """One more part, row j of `part`, into row i of `sums`."""
    m = max(stats[i, 0], part_stats[j, 0])
    old, new = exp(splat(stats[i, 0] - m)), exp(splat(part_stats[j, 0] - m))
    stats[i, 0], stats[i, 1] = m, lane(fma(splat(part_stats[j, 1]), new, splat(stats[i, 1]) * old), 0)
    for k in range(0, sums.shape[1], 16):
        store(sums, i, k, fma(load(part, j, k), new, load(sums, i, k) * old))


@kernel
def fold_tile(start, count, group_size, tile):
    """One more part for all queries that see it: it begins `start` positions behind the first token."""
    keep_apart()
    for i in range(max(start, 0) * group_size, count):
        fold(tile.sums, tile.stats, i, tile.part, tile.part_stats, i)


@kernel
def put_head(sums, stats, i, out, n, start, head_dim):
    """out[n, start : start + K] = o / l. The last vector is written number by number where a neighbour follows."""
    whole = head_dim - head_dim % 16
    for k in range(0, whole, 16):
        store(out, n, start + k, load(sums, i, k) / splat(stats[i, 1]))
    for k in range(whole, head_dim):
        out[n, start + k] = sums[i, k] / stats[i, 1]


@kernel
def attend(
    cache, layer, head, table, first_block, row, position, tokens, q, group_size, head_dim, of_prompt, tile, out,
    next_head, next_first,
):  # fmt: skip
    """Rows row ... row+tokens-1, the tokens from `position` on, with all that they see, for one key/value head.

    q (N,H*K'), rotated; out (N,H*K): the heads that share `head` are written.
    """
    keep_apart()
    gather_queries(q, row, tokens, head * group_size, group_size, head_dim, tile)
    for i in range(tokens * group_size):
        forget(tile.sums, tile.stats, i)
    parts = (position + tokens + PART - 1) // PART
    for part in range(parts):
        then_head, then = head, first_block + (part + 1) * (PART // POSITIONS)
        if part + 1 == parts:
            then_head, then = next_head, next_first
        attend_part(
            cache, layer, head, table, first_block, part, position, tokens, group_size, of_prompt, tile, then_head, then
        )
        fold_tile(part * PART - position, tokens * group_size, group_size, tile)
    for t in range(tokens):
        for m in range(group_size):
            column = (head * group_size + m) * head_dim
            put_head(tile.sums, tile.stats, t * group_size + m, out, row + t, column, head_dim)
