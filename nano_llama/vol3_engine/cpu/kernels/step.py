"""One step of the whole model over N packed rows, from token ids to logits: what every thread of the pool runs.

    embed                                                    rows, divided among the threads
    for each layer:                                          adapters (lora.py) beside every matrix
        norm · q, k, v of my heads · rotate, cache           my heads, all rows
        attention                                            tasks, taken one by one as threads become free
        merge KV splits · o, added to x                      my blocks of 16 outputs
        norm · gate and up · SwiGLU of my columns            my groups of 32 columns
        down, added to x                                     my blocks
    norm of the sampled rows · head                          my blocks of the vocabulary

Between these lines the threads wait at a barrier. While rows are few, small work is replicated: every thread does all
of it (the norm of one row takes less time than a barrier and a read from another core's cache); with many rows each
thread does its part. The reference for the step is Volume 1's model.
Not here: threads (jit/thread_pool.py), memory (cpu/runner.py). Tests: tests/vol3/cpu/test_runner.py.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from nano_llama.vol3_engine.cpu.jit.cycle_counter import lap
from nano_llama.vol3_engine.cpu.jit.jit import kernel, noinline
from nano_llama.vol3_engine.cpu.jit.thread_pool import NEXT_TASK, atomic_store, barrier, partition, wait_for_call
from nano_llama.vol3_engine.cpu.kernels.activations import Activations, skip_rows
from nano_llama.vol3_engine.cpu.kernels.attention import QueryTile, attention, merge_kv_splits, prefetch_first_keys
from nano_llama.vol3_engine.cpu.kernels.batch_arrays import (
    NUM_DECODE,
    NUM_ROWS,
    NUM_RUNS,
    NUM_SAMPLED,
    NUM_SAMPLED_RUNS,
)
from nano_llama.vol3_engine.cpu.kernels.embed import copy_row, embed_row
from nano_llama.vol3_engine.cpu.kernels.kv_cache import write_key, write_value
from nano_llama.vol3_engine.cpu.kernels.linear import linear
from nano_llama.vol3_engine.cpu.kernels.lora import LowRank, expand, set_aside, shrink
from nano_llama.vol3_engine.cpu.kernels.model import (
    DOWN,
    DOWN_A,
    EMBED,
    GATE_UP,
    GATE_UP_A,
    HEAD,
    O_A,
    QKV_A,
    K,
    O,
    Q,
    V,
    matrix_at,
    row_form,
    slice_blocks,
)
from nano_llama.vol3_engine.cpu.kernels.norm import rmsnorm
from nano_llama.vol3_engine.cpu.kernels.rope import rotate_head
from nano_llama.vol3_engine.cpu.kernels.swiglu import swiglu
from nano_llama.vol3_engine.cpu.simd.intrinsics import load, prefetch, store

MAX_REPLICATED_ROWS = 4  # rows up to which every thread does all of the small work
PREFETCH_BYTES = 2048  # of the next matrix, before a barrier
PANEL_ROWS, PANEL_GROUPS = 512, 4  # rows and column groups whose gate and up stay in the cache until SwiGLU reads them

PHASES = ("embed", "norm", "qkv", "attention", "o", "gate_up", "down", "head", "waiting")
EMBED_PHASE, NORM_PHASE, QKV_PHASE, ATTENTION_PHASE, O_PHASE, GATE_UP_PHASE, DOWN_PHASE, HEAD_PHASE, WAITING = range(9)


class Workspace(NamedTuple):
    """Intermediate results that all threads share. C: columns with padding."""

    x: np.ndarray  # [N,C] float32: the residual stream
    normed: Activations  # [N,C]
    q: np.ndarray  # [N,H*K'] float32
    k: np.ndarray  # [N,G*K']
    v: np.ndarray  # [N,G*K']
    attended: Activations  # [N,H*K]
    gated: Activations  # [N,F]
    kv_partials: np.ndarray  # [slots*H,K'] float32: o of each KV split that is a task of its own
    kv_partial_stats: np.ndarray  # [slots*H,2]: its m and l
    low: np.ndarray  # [N,R'] float32: A x of the rows that have an adapter
    aside: np.ndarray  # [N,C] float32: their residual stream, while W x takes its place
    sampled: np.ndarray  # [R,C]: the residual stream of the rows whose logits are needed
    logits: np.ndarray  # [R,V] float32
    times: np.ndarray  # (threads,9) int64: ticks per phase of the step; (0,0) without profiling


class ThreadWorkspace(NamedTuple):
    """What each thread has of its own."""

    normed: Activations  # (32,C)
    attended: Activations  # (32,H*K)
    low: np.ndarray  # (32,R')
    gate_up: np.ndarray  # (PANEL_ROWS+16,64*PANEL_GROUPS)
    tile: QueryTile
    scratch: np.ndarray  # for `linear`


@njit(nogil=True, _nrt=False, error_model="numpy")
def worker_loop(thread, control, seen, patience, threads, model, cache, batch, workspace, own):
    """Run steps as they are called for, until no call comes for a while -> calls seen."""
    while wait_for_call(thread, control, seen, patience):
        seen += 1
        step(thread, threads, control, model, cache, batch, workspace, own)
    return seen


@njit(inline="always")  # as a kernel, LLVM would optimize all of it twice
def step(thread, threads, control, model, cache, batch, workspace, own):
    rows, decode_rows = batch.sizes[NUM_ROWS], batch.sizes[NUM_DECODE]
    replicated = rows <= MAX_REPLICATED_ROWS
    runs = batch.runs[: batch.sizes[NUM_RUNS]]
    lora = LowRank(model.adapters, runs, own.low if replicated else workspace.low, workspace.aside)
    times = workspace.times
    clock = lap(times, thread, WAITING, 0)
    first, last = partition(thread, threads, rows)
    embedding = matrix_at(model.data, model.ends[EMBED])
    for n in range(first, last):
        if batch.tokens[n] < 0:
            copy_row(batch.embeddings, -1 - batch.tokens[n], workspace.x, n)
        else:
            embed_row(embedding, batch.tokens[n], workspace.x, n)
    clock = end_phase(thread, threads, control, times, EMBED_PHASE, clock)
    for layer in range(len(model.layers)):
        if thread == 0:
            atomic_store(control, NEXT_TASK, 0)
        normed = normalize(
            thread, threads, control, model, 2 * layer, rows=rows, decode_rows=decode_rows, x=workspace.x,
            shared=workspace.normed, own=own.normed, lora=lora, layer=layer, which=QKV_A,
        )  # fmt: skip
        clock = lap(times, thread, NORM_PHASE, clock)
        qkv(thread, threads, model, layer, cache, batch, workspace, normed, own, lora)
        prefetch_first_keys(thread, model.kv_heads, layer, cache, batch)
        clock = end_phase(thread, threads, control, times, QKV_PHASE, clock)

        w = matrix_at(model.data, model.layers[layer, O])
        prefetch_matrix(thread, threads, w, pieces=(w.rows + 15) // 16, blocks_per_piece=1)
        attention(threads, control, model, layer, cache, batch, workspace, own.tile)
        clock = end_phase(thread, threads, control, times, ATTENTION_PHASE, clock)
        if replicated:
            merge_kv_splits(0, rows, model, batch, workspace, own.tile, copy=True, out=own.attended)
            shrink(lora, layer, O_A, 0, rows, own.attended)
        else:
            merge_kv_splits(first, last, model, batch, workspace, own.tile, copy=False, out=workspace.attended)
            shrink(lora, layer, O_A, first, last, workspace.attended)
            barrier(control, threads)
        attended = own.attended if replicated else workspace.attended
        clock = lap(times, thread, ATTENTION_PHASE, clock)
        add_linear(thread, threads, w, attended, decode_rows, rows, own.scratch, lora, layer, O, out=workspace.x)

        w = matrix_at(model.data, model.layers[layer, GATE_UP])
        prefetch_matrix(thread, threads, w, pieces=w.rows // 64, blocks_per_piece=4)
        clock = end_phase(thread, threads, control, times, O_PHASE, clock)
        normed = normalize(
            thread, threads, control, model, 2 * layer + 1, rows=rows, decode_rows=decode_rows, x=workspace.x,
            shared=workspace.normed, own=own.normed, lora=lora, layer=layer, which=GATE_UP_A,
        )  # fmt: skip
        clock = lap(times, thread, NORM_PHASE, clock)
        gate_up(thread, threads, model, layer, decode_rows, rows, normed, own, lora, out=workspace.gated)

        w = matrix_at(model.data, model.layers[layer, DOWN])
        prefetch_matrix(thread, threads, w, pieces=(w.rows + 15) // 16, blocks_per_piece=1)
        clock = end_phase(thread, threads, control, times, GATE_UP_PHASE, clock)
        if replicated:
            shrink(lora, layer, DOWN_A, 0, rows, workspace.gated)
        elif len(runs) > 0:
            shrink(lora, layer, DOWN_A, first, last, workspace.gated)
            barrier(control, threads)
        add_linear(thread, threads, w, workspace.gated, decode_rows, rows, own.scratch, lora, layer, DOWN, workspace.x)
        clock = end_phase(thread, threads, control, times, DOWN_PHASE, clock)
    lm_head(thread, threads, control, model, batch, workspace, own)
    end_phase(thread, threads, control, times, HEAD_PHASE, clock)


@kernel
def end_phase(thread, threads, control, times, phase, clock):
    """Wait for all threads, on the clock: `phase` up to here, WAITING until the last has come -> now."""
    clock = lap(times, thread, phase, clock)
    barrier(control, threads)
    return lap(times, thread, WAITING, clock)


@kernel
def prefetch_matrix(thread, threads, w, pieces, blocks_per_piece):
    """Prefetch the beginning of this thread's part of a matrix, which is divided by pieces of so many blocks."""
    first = partition(thread, threads, pieces)[0] * blocks_per_piece
    at = first * (len(w.data) // ((w.rows + 15) // 16))
    for line in range(0, PREFETCH_BYTES, 64):
        prefetch(w.data, at + line)


@kernel
def normalize(thread, threads, control, model, norm, rows, decode_rows, x, shared, own, lora, layer, which):
    """RMSNorm of all rows -> where they are: this thread's own activations if replicated, else the shared ones.

    Then A x of those that have an adapter, into lora.low. which: the A of that layer.
    """
    noinline()
    weight = model.norms[norm]
    if rows <= MAX_REPLICATED_ROWS:
        for n in range(rows):
            rmsnorm(x, n, weight, model.hidden_size, model.eps, own, row_form(model, n, decode_rows))
        shrink(lora, layer, which, 0, rows, own)
        return own
    first, last = partition(thread, threads, rows)
    for n in range(first, last):
        rmsnorm(x, n, weight, model.hidden_size, model.eps, shared, row_form(model, n, decode_rows))
    shrink(lora, layer, which, first, last, shared)
    barrier(control, threads)
    return shared


@kernel
def qkv(thread, threads, model, layer, cache, batch, workspace, normed, own, lora):
    """q, k and v of this thread's part of all q, k and v heads, rotated; keys and values into the cache."""
    noinline()
    H, G, size = model.heads, model.kv_heads, model.head_dim
    rows, decode_rows = batch.sizes[NUM_ROWS], batch.sizes[NUM_DECODE]
    width = own.tile.queries.shape[1]  # K'
    blocks = width // 16
    first, last = partition(thread, threads, H + 2 * G)
    heads_before = 0
    for which in range(3):  # Q, K, V
        heads = H if which == Q else G
        begin, end = max(first - heads_before, 0), min(last - heads_before, heads)
        heads_before += heads
        if begin >= end:
            continue
        out = (workspace.q, workspace.k, workspace.v)[which]
        w = matrix_at(model.data, model.layers[layer, which])
        linear(
            w, normed, decode_rows, rows, first=begin * blocks, last=end * blocks, add=False, scratch=own.scratch,
            out=out,
        )  # fmt: skip
        expand(
            lora, layer, which, 0, rows, first=begin * blocks, last=end * blocks, aside=False, out=out,
            column=16 * begin * blocks,
        )  # fmt: skip
        for n in range(rows):
            for h in range(begin, end):
                if which != V:
                    rotate_head(out, n, start=h * width, head_dim=size, cos=batch.cos, sin=batch.sin)
                block, slot = batch.blocks[n], batch.slots[n]
                if which == K:
                    write_key(cache, layer, h, block, slot, x=out, n=n, start=h * width, narrow=own.tile.narrow)
                if which == V:
                    write_value(cache, layer, h, block, slot, x=out, n=n, start=h * width, narrow=own.tile.narrow)


@kernel
def add_linear(thread, threads, w, x, decode_rows, rows, scratch, lora, layer, which, out):
    """This thread's blocks of W x, added to the residual stream. which: the B of that layer."""
    noinline()
    first, last = partition(thread, threads, (w.rows + 15) // 16)
    set_aside(lora, layer, which, first, last, out)
    linear(w, x, decode_rows, rows, first, last, add=True, scratch=scratch, out=out)
    expand(lora, layer, which, 0, rows, first, last, aside=True, out=out, column=16 * first)


@kernel
def gate_up(thread, threads, model, layer, decode_rows, rows, normed, own, lora, out):
    """This thread's columns of SwiGLU. Rows of gate and up alternate by 16, so one thread has both."""
    noinline()
    w = matrix_at(model.data, model.layers[layer, GATE_UP])
    first, last = partition(thread, threads, w.rows // 64)
    for begin in range(0, rows, PANEL_ROWS):
        count = min(PANEL_ROWS, rows - begin)
        panel_decode_rows = min(max(decode_rows - begin, 0), count)
        panel, panel_out = skip_rows(normed, begin), skip_rows(out, begin)
        for group in range(first, last, PANEL_GROUPS):
            end = min(group + PANEL_GROUPS, last)
            blocks = 4 * (end - group)
            linear(
                slice_blocks(w, 4 * group, blocks), panel, panel_decode_rows, count, first=0, last=blocks, add=False,
                scratch=own.scratch, out=own.gate_up,
            )  # fmt: skip
            expand(
                lora, layer, GATE_UP, begin, begin + count, first=4 * group, last=4 * end, aside=False,
                out=own.gate_up, column=0,
            )  # fmt: skip
            for n in range(count):
                swiglu(own.gate_up, n, group, end, panel_out, row_form(model, n, panel_decode_rows))


@kernel
def lm_head(thread, threads, control, model, batch, workspace, own):
    """Logits of the sampled rows: this thread's part of the vocabulary. All rows count as decode rows here."""
    noinline()
    sampled = batch.sizes[NUM_SAMPLED]
    if sampled == 0:
        return
    first, last = partition(thread, threads, sampled)
    for r in range(first, last):
        for k in range(0, workspace.x.shape[1], 16):
            store(workspace.sampled, r, k, load(workspace.x, batch.logit_rows[r], k))
    barrier(control, threads)
    runs, low = batch.sampled_runs[: batch.sizes[NUM_SAMPLED_RUNS]], workspace.low
    lora = LowRank(model.adapters, runs, own.low if sampled <= MAX_REPLICATED_ROWS else low, workspace.aside)
    layers = len(model.layers)
    normed = normalize(
        thread, threads, control, model, 2 * layers, rows=sampled, decode_rows=sampled, x=workspace.sampled,
        shared=workspace.normed, own=own.normed, lora=lora, layer=layers, which=0,
    )  # fmt: skip
    w = matrix_at(model.data, model.ends[HEAD])
    first, last = partition(thread, threads, (w.rows + 15) // 16)
    linear(w, normed, sampled, sampled, first, last, add=False, scratch=own.scratch, out=workspace.logits)
    expand(lora, layers, 0, 0, sampled, first, last, aside=False, out=workspace.logits, column=16 * first)
