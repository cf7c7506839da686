"""One step of the whole model over N packed rows: what every thread of the team runs, from token ids to logits.

    embed                                                    rows shared out
    for each layer:
        norm · q, k, v of my heads · rotate, cache           my heads, all rows
        attention                                            tiles of queries, taken one by one as threads come free
        fold parts · o, added to x                           my blocks of 16 outputs
        norm · gate and up · SwiGLU of my columns            my groups of 32 columns
        down, added to x                                     my blocks
    norm of the wanted rows · head                           my blocks of the vocabulary

Between these lines the threads meet. What is small is done by every thread for itself while rows are few (the norm of
one row takes less time than a meeting and another core's memory); with many rows each thread does its share.
The plain twin of the step is Volume 1's model. Not here: threads (thread_pool.py), memory (cpu/runner.py).
Tests: tests/vol3/cpu/test_runner.py.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from nano_llama.vol3_engine.cpu.jit.cycle_counter import lap
from nano_llama.vol3_engine.cpu.jit.jit import keep_apart, kernel
from nano_llama.vol3_engine.cpu.jit.thread_pool import TICKET, add_and_get, meet, next_call, share, write_now
from nano_llama.vol3_engine.cpu.kernels.activations import FLOATS, Activations, reform, rows_from
from nano_llama.vol3_engine.cpu.kernels.attention import (
    PART,
    Tile,
    attend,
    attend_part,
    fold,
    forget,
    gather_queries,
    put_head,
)
from nano_llama.vol3_engine.cpu.kernels.embed import embed_row
from nano_llama.vol3_engine.cpu.kernels.kv_cache import POSITIONS, fetch_keys, write_key, write_value
from nano_llama.vol3_engine.cpu.kernels.linear import linear
from nano_llama.vol3_engine.cpu.kernels.norm import rmsnorm
from nano_llama.vol3_engine.cpu.kernels.pack import Matrix
from nano_llama.vol3_engine.cpu.kernels.rope import rotate_head
from nano_llama.vol3_engine.cpu.kernels.swiglu import swiglu
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, prefetch, store

FEW = 4  # rows up to which every thread does the small work for itself
FORESEEN = 2048  # bytes of a matrix asked for before the threads meet
PANEL, TOGETHER = 512, 4  # rows, and groups of gate and up, whose products stay in the cache until SwiGLU has read them

Q, K, V, O, GATE_UP, DOWN = range(6)  # matrices of a layer
EMBED, HEAD = range(2)  # and of the ends
EMBEDDING, NORM, QKV, ATTENTION, OUT, MLP, MLP_DOWN, LOGITS, WAITING = range(9)  # what the clock tells apart
PARTS = ("embed", "norm", "qkv", "attention", "o", "gate_up", "down", "head", "waiting")


class Model(NamedTuple):
    """Weights, all in one piece of memory, and the sizes."""

    data: np.ndarray  # (bytes,) uint8: packed matrices, each from a multiple of 64 on
    layers: np.ndarray  # (L,6,5) int64: kind, rows, columns, first byte, byte after the last
    ends: np.ndarray  # (2,5) int64: the same of embedding and head
    norms: np.ndarray  # (2L+1,C) float32: of attention and MLP for each layer, and the last
    hidden_size: int  # D
    heads: int  # H
    kv_heads: int  # G
    head_dim: int  # K
    eps: np.float32
    generated_form: int  # in which forms matrices read rows that were generated,
    prompt_form: int  # and rows of prompts


class Batch(NamedTuple):
    """What a step is to compute: filled anew for every step, never moved. Sizes in brackets are room."""

    sizes: np.ndarray  # (4,) int64: rows N, tasks, logit rows R, rows that are not of prompts: the first ones
    tokens: np.ndarray  # [N] int64
    blocks: np.ndarray  # [N] int64: the block of each row's own key and value,
    slots: np.ndarray  # [N] int64: and its place in it
    cos: np.ndarray  # [N,K/2] float32
    sin: np.ndarray  # [N,K/2] float32
    tables: np.ndarray  # [..] int64: all texts' block tables, one after the other
    tasks: np.ndarray  # [tasks,6] int64: first row, rows, its position, first of its table, part or -1: all, slot
    split: np.ndarray  # [N,2] int64: for a row whose parts were shared out: its first slot, and their number, else 0
    logit_rows: np.ndarray  # [R] int64


class Room(NamedTuple):
    """Where intermediate results lie that threads share. C: columns with padding."""

    x: np.ndarray  # [N,C] float32: the residual stream
    normed: Activations  # [N,C]
    q: np.ndarray  # [N,H*K'] float32
    k: np.ndarray  # [N,G*K']
    v: np.ndarray  # [N,G*K']
    attended: Activations  # [N,H*K]
    gated: Activations  # [N,F]
    parts: np.ndarray  # [slots*H,K'] float32: o of parts that were shared out
    part_stats: np.ndarray  # [slots*H,2]: m and l
    wanted: np.ndarray  # [R,C]: the residual stream where logits are wanted
    logits: np.ndarray  # [R,V] float32
    times: np.ndarray  # (threads,9) int64: ticks of each part of the step; (0,0): nobody asks


class Own(NamedTuple):
    """What each thread has for itself."""

    normed: Activations  # (32,C)
    attended: Activations  # (32,H*K)
    gate_up: np.ndarray  # (PANEL+16,64*TOGETHER)
    tile: Tile
    scratch: np.ndarray  # for `linear`


@njit(nogil=True, _nrt=False, error_model="numpy")
def serve(thread, control, seen, patience, threads, model, cache, batch, room, own):
    """Steps, as they are called for, until none comes for a while -> calls seen."""
    while next_call(thread, control, seen, patience):
        seen += 1
        step(thread, threads, control, model, cache, batch, room, own)
    return seen


@njit(inline="always")  # LLVM would go through all of it twice
def step(thread, threads, control, model, cache, batch, room, own):
    rows, generated = batch.sizes[0], batch.sizes[3]
    alone = rows <= FEW
    layers = len(model.layers)
    clock = lap(room.times, thread, WAITING, 0)
    first, last = share(thread, threads, rows)
    embedding = matrix(model.data, model.ends[EMBED])
    for n in range(first, last):
        embed_row(embedding, batch.tokens[n], room.x, n)
    clock = lap(room.times, thread, EMBEDDING, clock)
    meet(control, threads)
    clock = lap(room.times, thread, WAITING, clock)
    for layer in range(layers):
        if thread == 0:
            write_now(control, TICKET, 0)
        normed = normalize(thread, threads, control, model, 2 * layer, room.x, generated, rows, room.normed, own.normed)
        clock = lap(room.times, thread, NORM, clock)
        project(thread, threads, model, layer, cache, batch, room, normed, own)
        foresee_keys(thread, model.kv_heads, layer, cache, batch)
        clock = lap(room.times, thread, QKV, clock)
        meet(control, threads)
        clock = lap(room.times, thread, WAITING, clock)
        w = matrix(model.data, model.layers[layer, O])
        foresee(thread, threads, w, (w.rows + 15) // 16, 1)
        attention(threads, control, model, layer, cache, batch, room, own.tile)
        clock = lap(room.times, thread, ATTENTION, clock)
        meet(control, threads)
        clock = lap(room.times, thread, WAITING, clock)
        if alone:
            gather_attended(0, rows, model, batch, room, own.tile, True, own.attended)
        else:
            gather_attended(first, last, model, batch, room, own.tile, False, room.attended)
            meet(control, threads)
        attended = own.attended if alone else room.attended
        clock = lap(room.times, thread, ATTENTION, clock)
        outputs(thread, threads, w, attended, generated, rows, own.scratch, room.x)
        w = matrix(model.data, model.layers[layer, GATE_UP])
        foresee(thread, threads, w, w.rows // 64, 4)
        clock = lap(room.times, thread, OUT, clock)
        meet(control, threads)
        clock = lap(room.times, thread, WAITING, clock)
        normed = normalize(
            thread, threads, control, model, 2 * layer + 1, room.x, generated, rows, room.normed, own.normed
        )
        clock = lap(room.times, thread, NORM, clock)
        gate(thread, threads, model, layer, generated, rows, room, normed, own)
        w = matrix(model.data, model.layers[layer, DOWN])
        foresee(thread, threads, w, (w.rows + 15) // 16, 1)
        clock = lap(room.times, thread, MLP, clock)
        meet(control, threads)
        clock = lap(room.times, thread, WAITING, clock)
        outputs(thread, threads, w, room.gated, generated, rows, own.scratch, room.x)
        clock = lap(room.times, thread, MLP_DOWN, clock)
        meet(control, threads)
        clock = lap(room.times, thread, WAITING, clock)
    head(thread, threads, control, model, batch, room, own)
    clock = lap(room.times, thread, LOGITS, clock)
    meet(control, threads)
    lap(room.times, thread, WAITING, clock)


@kernel
def matrix(data, entry):
    """A matrix of the model, by its entry (kind, rows, columns, first byte, byte after the last)."""
    return Matrix(entry[0], entry[1], entry[2], data[entry[3] : entry[4]])


@kernel
def blocks_of(w, first, count):
    """Some blocks of 16 rows of a matrix, as a matrix."""
    size = len(w.data) // ((w.rows + 15) // 16)
    return Matrix(w.kind, 16 * count, w.columns, w.data[first * size : (first + count) * size])


@kernel
def form_of(model, n, generated):
    """In which forms row n is read."""
    return model.generated_form if n < generated else model.prompt_form


@kernel
def foresee(thread, threads, w, shares, width):
    """Ask for the first lines of this thread's share of a matrix, to be there after the next meeting.

    The matrix is shared out in `shares` pieces of `width` blocks.
    """
    first = share(thread, threads, shares)[0] * width
    at = first * (len(w.data) // ((w.rows + 15) // 16))
    for line in range(0, FORESEEN, 64):
        prefetch(w.data, at + line)


@kernel
def normalize(thread, threads, control, model, norm, x, generated, rows, shared, own):
    """RMSNorm of all rows -> where they are: few in this thread's own room, many in the shared one."""
    keep_apart()
    weight = model.norms[norm]
    if rows <= FEW:
        for n in range(rows):
            rmsnorm(x, weight, model.hidden_size, model.eps, n, own, form_of(model, n, generated))
        return own
    first, last = share(thread, threads, rows)
    for n in range(first, last):
        rmsnorm(x, weight, model.hidden_size, model.eps, n, shared, form_of(model, n, generated))
    meet(control, threads)
    return shared


@kernel
def project(thread, threads, model, layer, cache, batch, room, normed, own):
    """q, k and v of this thread's heads, rotated; keys and values into the cache. Heads stand in the order q, k, v."""
    keep_apart()
    H, G, size = model.heads, model.kv_heads, model.head_dim
    rows, generated = batch.sizes[0], batch.sizes[3]
    width = own.tile.queries.shape[1]  # K'
    blocks = width // 16
    first, last = share(thread, threads, H + 2 * G)
    before = 0
    for which in range(3):  # Q, K, V
        heads = H if which == Q else G
        one, end = max(first - before, 0), min(last - before, heads)
        before += heads
        if one >= end:
            continue
        out = (room.q, room.k, room.v)[which]
        w = matrix(model.data, model.layers[layer, which])
        linear(w, normed, generated, rows, one * blocks, end * blocks, False, own.scratch, out)
        for n in range(rows):
            for h in range(one, end):
                if which != V:
                    rotate_head(out, n, h * width, size, batch.cos, batch.sin)
                if which == K:
                    write_key(cache, layer, h, batch.blocks[n], batch.slots[n], out, n, h * width, own.tile.narrow)
                if which == V:
                    write_value(cache, layer, h, batch.blocks[n], batch.slots[n], out, n, h * width, own.tile.narrow)


@kernel
def keys_of(ticket, kv_heads, batch):
    """Where the first keys of a task lie: their head, and of their blocks the first in batch.tables."""
    task = batch.tasks[ticket // kv_heads]
    return ticket % kv_heads, task[3] + max(task[4], 0) * (PART // POSITIONS)


@kernel
def foresee_keys(thread, kv_heads, layer, cache, batch):
    """Ask for the keys of this thread's first task in attention, to be there after the next meeting."""
    if thread < batch.sizes[1] * kv_heads:
        g, first = keys_of(thread, kv_heads, batch)
        for b in range(first, min(first + PART // POSITIONS, len(batch.tables))):
            fetch_keys(cache, layer, g, batch.tables[b])


@kernel
def attention(threads, control, model, layer, cache, batch, room, tile):
    """Tasks x key/value heads; each thread takes the next one that nobody has."""
    keep_apart()
    G = model.kv_heads
    group_size = model.heads // G
    count = batch.sizes[1] * G
    ticket = add_and_get(control, TICKET, 1) - 1
    while ticket < count:
        g, task = ticket % G, batch.tasks[ticket // G]
        row, tokens, position, table, part, slot = task[0], task[1], task[2], task[3], task[4], task[5]
        of_prompt = row >= batch.sizes[3]
        next_g, next_first = keys_of(min(ticket + threads, count - 1), G, batch)
        if part < 0:
            attend(cache, layer, g, batch.tables, table, row, position, tokens, room.q,
                   group_size, model.head_dim, of_prompt, tile, room.attended.values, next_g, next_first)  # fmt: skip
        else:
            gather_queries(room.q, row, tokens, g * group_size, group_size, model.head_dim, tile)
            attend_part(cache, layer, g, batch.tables, table, part, position, tokens, group_size, of_prompt,
                        tile, next_g, next_first)  # fmt: skip
            for m in range(group_size):
                put_part(tile, m, room, slot * model.heads + g * group_size + m)
        ticket = add_and_get(control, TICKET, 1) - 1


@kernel
def put_part(tile, i, room, record):
    """One query's part, for all to see."""
    for k in range(0, tile.part.shape[1], 16):
        store(room.parts, record, k, load(tile.part, i, k))
    room.part_stats[record, 0], room.part_stats[record, 1] = tile.part_stats[i, 0], tile.part_stats[i, 1]


@kernel
def gather_attended(first, last, model, batch, room, tile, copied, out):
    """Rows first ... last-1 of what attention found into `out`: parts folded, values copied where asked, bytes made."""
    keep_apart()
    size = model.head_dim
    for n in range(first, last):
        slot, parts = batch.split[n, 0], batch.split[n, 1]
        if parts > 0:
            for h in range(model.heads):
                forget(tile.sums, tile.stats, 0)
                for part in range(parts):
                    record = (slot + part) * model.heads + h
                    fold(tile.sums, tile.stats, 0, room.parts, room.part_stats, record)
                put_head(tile.sums, tile.stats, 0, out.values, n, h * size, size)
        elif copied:
            for k in range(0, out.values.shape[1], 16):
                store(out.values, n, k, load(room.attended.values, n, k))
        reform(out, n, form_of(model, n, batch.sizes[3]) & ~FLOATS)


@kernel
def outputs(thread, threads, w, x, generated, rows, scratch, out):
    """This thread's blocks of W x, added to the residual stream."""
    keep_apart()
    first, last = share(thread, threads, (w.rows + 15) // 16)
    linear(w, x, generated, rows, first, last, True, scratch, out)


@kernel
def gate(thread, threads, model, layer, generated, rows, room, normed, own):
    """This thread's columns of SwiGLU: their gates and ups stand in turns of 16, so it has both."""
    keep_apart()
    w = matrix(model.data, model.layers[layer, GATE_UP])
    first, last = share(thread, threads, w.rows // 64)
    for begin in range(0, rows, PANEL):
        count = min(PANEL, rows - begin)
        before = min(max(generated - begin, 0), count)  # rows of this panel that are not of prompts
        x, out = rows_from(normed, begin), rows_from(room.gated, begin)
        for group in range(first, last, TOGETHER):
            end = min(group + TOGETHER, last)
            blocks = 4 * (end - group)
            w_here = blocks_of(w, 4 * group, blocks)
            linear(w_here, x, before, count, 0, blocks, False, own.scratch, own.gate_up)
            for n in range(count):
                swiglu(own.gate_up, n, group, end, out, form_of(model, n, before))


@kernel
def head(thread, threads, control, model, batch, room, own):
    """Logits of the wanted rows: this thread's part of the vocabulary."""
    keep_apart()
    wanted = batch.sizes[2]
    if wanted == 0:
        return
    first, last = share(thread, threads, wanted)
    for r in range(first, last):
        for k in range(0, room.x.shape[1], 16):
            store(room.wanted, r, k, load(room.x, batch.logit_rows[r], k))
    meet(control, threads)
    normed = normalize(
        thread, threads, control, model, len(model.norms) - 1, room.wanted, wanted, wanted, room.normed, own.normed
    )  # a row is multiplied with the head as if it were generated, whose token it is to choose
    w = matrix(model.data, model.ends[HEAD])
    first, last = share(thread, threads, (w.rows + 15) // 16)
    linear(w, normed, wanted, wanted, first, last, False, own.scratch, room.logits)
