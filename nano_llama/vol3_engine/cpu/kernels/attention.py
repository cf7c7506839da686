"""Paged attention: each thread takes one task after another, a tile of queries against all that they may see.

A task is a few neighbouring tokens of one sequence with the query heads that share a key/value head (GQA). Its context
is cut into splits of 256 positions, whose results are merged in ascending order (online_softmax.py). Where a decode
step has too few tasks for all threads, a context's splits are tasks of their own, and are merged afterwards: the same
arithmetic in the same order.

    attention             the tasks of a step              merge_kv_splits    what several threads found, per row
    attend                one task, all of its splits
    attend_split          one split, by one of
        attention_decode.py      one token, straight from the cache
        attention_tiled.py       more queries, keys and values widened once for all of them
        attention_amx.py         prefill rows, by AMX tiles of bfloat16

Where a split begins depends on the position alone, and every sum runs in ascending order of what it sums over; so a
row's bits depend neither on the other rows, nor on the prompt's chunks, nor on which thread took which split.
Tests: tests/vol3/cpu/kernels/test_attention.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.isa import has_amx
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.jit.thread_pool import NEXT_TASK, fetch_add
from nano_llama.vol3_engine.cpu.kernels.activations import FLOATS, convert_row
from nano_llama.vol3_engine.cpu.kernels.attention_amx import AmxOperands, amx_operands, attend_amx
from nano_llama.vol3_engine.cpu.kernels.attention_decode import MAX_DECODE_HEADS, attend_decode
from nano_llama.vol3_engine.cpu.kernels.attention_tiled import CHUNK, attend_tiled, visible_in_split
from nano_llama.vol3_engine.cpu.kernels.batch_arrays import (
    ALL_SPLITS,
    COUNT,
    FIRST,
    NUM_DECODE,
    NUM_TASKS,
    POSITION,
    ROW,
    SLOT,
    SPLIT,
    TABLE,
    TOKENS,
)
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    BLOCK_SIZE,
    DTYPES,
    KVCache,
    is_exact,
    keys_plain,
    padded,
    prefetch_keys,
    values_plain,
)
from nano_llama.vol3_engine.cpu.kernels.model import row_form
from nano_llama.vol3_engine.cpu.kernels.online_softmax import SPLIT_SIZE, init_partial, merge_partial, store_head
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, splat, store, store_bfloat

HAS_AMX = has_amx()
DECODE_QUERIES = 48  # queries (tokens x query heads of a key/value head) that a tile aims at,
PREFILL_QUERIES = 96 if HAS_AMX else DECODE_QUERIES  # and for prefill rows


class QueryTile(NamedTuple):
    """A thread's scratch memory for one tile of Q queries."""

    queries: np.ndarray  # (Q,K') float32, times 1 / sqrt(K)
    scores: np.ndarray  # (Q,SPLIT_SIZE): then their exponentials
    partial: np.ndarray  # (Q,K'): o of one split
    partial_stats: np.ndarray  # (Q,2): its m and l
    acc: np.ndarray  # (Q,K'): o of the splits so far
    stats: np.ndarray  # (Q,2): their m and l
    keys: np.ndarray  # (CHUNK/16,K',16) widened
    values: np.ndarray  # (CHUNK,K') widened
    amx: AmxOperands
    narrow: np.ndarray  # (K',) of the cache's type


def query_tile(group_size: int, head_dim: int, dtype: str) -> QueryTile:
    """group_size: query heads of one key/value head."""
    queries, width = -(-max(PREFILL_QUERIES, group_size) // 32) * 32, padded(head_dim)

    def floats(*shape: int) -> np.ndarray:
        return aligned(int(np.prod(shape)), np.float32).reshape(shape)

    return QueryTile(
        queries=floats(queries, width),
        scores=floats(queries, SPLIT_SIZE),
        partial=floats(queries, width),
        partial_stats=floats(queries, 2),
        acc=floats(queries, width),
        stats=floats(queries, 2),
        keys=floats(CHUNK // BLOCK_SIZE, width, BLOCK_SIZE),
        values=floats(CHUNK, width),
        amx=amx_operands(queries, width, SPLIT_SIZE),
        narrow=aligned(width, DTYPES[dtype]),
    )


def tokens_per_tile(group_size: int, prefill: bool) -> int:
    return max(1, (PREFILL_QUERIES if prefill else DECODE_QUERIES) // group_size)


def attention_plain(
    q: np.ndarray, position: int, cache: KVCache, layer: int, head: int, table: list[int]
) -> np.ndarray:
    """q (T,M,K) of the tokens position, position + 1, ... -> (T,M,K): the reference, in float64."""
    T, _, K = q.shape
    keys, values = (f(cache, layer, head, table)[: position + T, :K] for f in (keys_plain, values_plain))
    scores = np.einsum("tmk,sk->tms", q.astype(np.float64), keys) / np.sqrt(K)
    masked = np.arange(position + T) > position + np.arange(T)[:, None]  # (T,S)
    scores = np.where(masked[:, None], -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("tms,sk->tmk", weights / weights.sum(-1, keepdims=True), values)


# -- the tasks of a step ----------------------------------------------------------------------------------------------


@kernel
def attention(threads, control, model, layer, cache, batch, workspace, tile):
    """Tasks x key/value heads; each thread takes the next one that is left."""
    noinline()
    G = model.kv_heads
    group_size = model.heads // G
    count = batch.sizes[NUM_TASKS] * G
    ticket = fetch_add(control, NEXT_TASK, 1)
    while ticket < count:
        head, task = ticket % G, batch.tasks[ticket // G]
        next_head, next_block = first_keys(min(ticket + threads, count - 1), G, batch)
        prefill = task[ROW] >= batch.sizes[NUM_DECODE]
        gather_queries(
            workspace.q, task[ROW], task[TOKENS], first_head=head * group_size, group_size=group_size,
            head_dim=model.head_dim, tile=tile,
        )  # fmt: skip
        if task[SPLIT] == ALL_SPLITS:
            attend(
                cache, layer, head, tables=batch.tables, first_block=task[TABLE], row=task[ROW], tokens=task[TOKENS],
                position=task[POSITION], group_size=group_size, head_dim=model.head_dim, prefill=prefill, tile=tile,
                out=workspace.attended.values, next_head=next_head, next_block=next_block,
            )  # fmt: skip
        else:
            attend_split(
                cache, layer, head, tables=batch.tables, first_block=task[TABLE], split=task[SPLIT],
                tokens=task[TOKENS], position=task[POSITION], group_size=group_size, prefill=prefill, tile=tile,
                next_head=next_head, next_block=next_block,
            )  # fmt: skip
            for m in range(group_size):
                store_partial(tile, m, workspace, task[SLOT] * model.heads + head * group_size + m)
        ticket = fetch_add(control, NEXT_TASK, 1)


@kernel
def first_keys(ticket, kv_heads, batch):
    """Where the keys that a task reads first lie: their head, and the index of their block in batch.tables."""
    task = batch.tasks[ticket // kv_heads]
    return ticket % kv_heads, task[TABLE] + max(task[SPLIT], 0) * (SPLIT_SIZE // BLOCK_SIZE)


@kernel
def prefetch_first_keys(thread, kv_heads, layer, cache, batch):
    """Prefetch the keys of this thread's first task, to be there after the next barrier."""
    if thread < batch.sizes[NUM_TASKS] * kv_heads:
        head, first = first_keys(thread, kv_heads, batch)
        for b in range(first, min(first + SPLIT_SIZE // BLOCK_SIZE, len(batch.tables))):
            prefetch_keys(cache, layer, head, batch.tables[b])


@kernel
def store_partial(tile, i, workspace, record):
    """Query i's partial result, for all threads to see."""
    for k in range(0, tile.partial.shape[1], 16):
        store(workspace.kv_partials, record, k, load(tile.partial, i, k))
    workspace.kv_partial_stats[record, 0] = tile.partial_stats[i, 0]
    workspace.kv_partial_stats[record, 1] = tile.partial_stats[i, 1]


@kernel
def merge_kv_splits(first, last, model, batch, workspace, tile, copy, out):
    """Rows first ... last-1 of attention's output into `out`, in the forms that the next matrix reads.

    copy: whether rows whose context was not split must be copied from the workspace, because `out` is another array.
    """
    noinline()
    size = model.head_dim
    for n in range(first, last):
        slot, num_splits = batch.kv_splits[n, FIRST], batch.kv_splits[n, COUNT]
        if num_splits > 0:
            for h in range(model.heads):
                init_partial(tile.acc, tile.stats, 0)
                for split in range(num_splits):
                    record = (slot + split) * model.heads + h
                    merge_partial(tile.acc, tile.stats, 0, workspace.kv_partials, workspace.kv_partial_stats, record)
                store_head(tile.acc, tile.stats, 0, out.values, n, h * size, size)
        elif copy:
            for k in range(0, out.values.shape[1], 16):
                store(out.values, n, k, load(workspace.attended.values, n, k))
        convert_row(out, n, row_form(model, n, batch.sizes[NUM_DECODE]) & ~FLOATS)


# -- one task ---------------------------------------------------------------------------------------------------------


@kernel
def gather_queries(q, row, tokens, first_head, group_size, head_dim, tile):
    """Query t * group_size + m of the tile: head first_head + m of row + t, times 1 / sqrt(K). q (N,H*K'), rotated."""
    noinline()
    width = tile.queries.shape[1]
    factor = splat(np.float32(1) / np.sqrt(np.float32(head_dim)))
    for t in range(tokens):
        for m in range(group_size):
            for k in range(0, width, 16):
                vector = load(q, row + t, (first_head + m) * width + k)
                store(tile.queries, t * group_size + m, k, vector * factor)
                if HAS_AMX:
                    store_bfloat(tile.amx.queries, t * group_size + m, k, vector * factor)


@kernel
def attend(
    cache, layer, head, tables, first_block, row, tokens, position, group_size, head_dim, prefill, tile, out,
    next_head, next_block,
):  # fmt: skip
    """The tile's queries against all that they see -> the heads of `out` (N,H*K) that share `head`.

    They are those of `tokens` tokens, from row `row` and position `position` on; tables[first_block ...] are the
    sequence's blocks. Then, probably, come the keys of next_head from tables[next_block] on.
    """
    noinline()
    for i in range(tokens * group_size):
        init_partial(tile.acc, tile.stats, i)
    num_splits = (position + tokens + SPLIT_SIZE - 1) // SPLIT_SIZE
    for split in range(num_splits):
        then_head, then_block = head, first_block + (split + 1) * (SPLIT_SIZE // BLOCK_SIZE)
        if split + 1 == num_splits:
            then_head, then_block = next_head, next_block
        attend_split(
            cache, layer, head, tables=tables, first_block=first_block, split=split, tokens=tokens, position=position,
            group_size=group_size, prefill=prefill, tile=tile, next_head=then_head, next_block=then_block,
        )  # fmt: skip
        merge_tile(split * SPLIT_SIZE - position, tokens * group_size, group_size, tile)
    for t in range(tokens):
        for m in range(group_size):
            column = (head * group_size + m) * head_dim
            store_head(tile.acc, tile.stats, t * group_size + m, out, row + t, column, head_dim)


@kernel
def attend_split(
    cache, layer, head, tables, first_block, split, tokens, position, group_size, prefill, tile, next_head, next_block
):
    """The tile's queries against one split -> tile.partial, tile.partial_stats. Arguments as in `attend`."""
    noinline()
    start = split * SPLIT_SIZE
    first = first_block + start // BLOCK_SIZE
    if HAS_AMX and prefill and not is_exact(cache.keys):
        attend_amx(
            cache, layer, head, tables=tables, first=first, start=start, tokens=tokens, position=position,
            group_size=group_size, tile=tile,
        )  # fmt: skip
    elif tokens == 1 and group_size <= MAX_DECODE_HEADS:
        attend_decode(
            cache, layer, head, tables=tables, first=first, end=visible_in_split(start, position + 1),
            group_size=group_size, tile=tile, next_head=next_head, next_block=next_block,
        )  # fmt: skip
    else:
        attend_tiled(
            cache, layer, head, tables=tables, first=first, start=start, tokens=tokens, position=position,
            group_size=group_size, tile=tile,
        )  # fmt: skip


@kernel
def merge_tile(start, count, group_size, tile):
    """Merge the split for all queries that see it: it begins `start` positions after the first token."""
    noinline()
    for i in range(max(start, 0) * group_size, count):
        merge_partial(tile.acc, tile.stats, i, tile.partial, tile.partial_stats, i)
