"""A PackedBatch as the arrays that a compiled step reads: positions, blocks, RoPE angles, and attention cut into tasks.

Where prefill rows take other kernels than decode rows, all decode rows come first: a sequence's rows then lie in at
most two pieces. A task is a tile of queries: neighbouring rows of one sequence, for one key/value head. With few rows
in a step, a long context is cut into KV splits of 256 positions, so that all threads have work; each row's partial
results are merged afterwards in the order of positions, as they are within a task: the bits are the same either way.
Not here: the step (kernels/step.py). Tests: tests/vol3/cpu/test_runner.py.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.rope import rope_tables
from nano_llama.vol3_engine.batch import PackedBatch
from nano_llama.vol3_engine.cpu.kernels.attention import tokens_per_tile
from nano_llama.vol3_engine.cpu.kernels.batch_arrays import (
    ALL_SPLITS,
    COUNT,
    FIRST,
    NUM_DECODE,
    NUM_ROWS,
    NUM_RUNS,
    NUM_SAMPLED,
    NUM_SAMPLED_RUNS,
    NUM_TASKS,
    POSITION,
    SPLIT,
    TOKENS,
    BatchArrays,
    Task,
)
from nano_llama.vol3_engine.cpu.kernels.kv_cache import BLOCK_SIZE
from nano_llama.vol3_engine.cpu.kernels.online_softmax import SPLIT_SIZE

TASKS_PER_THREAD = 8  # with so many or more, no thread waits long for the last


class Capacity(NamedTuple):
    """The largest step that fits."""

    rows: int
    sampled: int  # logit rows
    table: int  # entries of all block tables
    tasks: int
    slots: int  # KV splits that are tasks of their own
    embeddings: int  # rows whose embedding is given

    def holds(self, needed: "Capacity") -> bool:
        return all(need <= have for need, have in zip(needed, self, strict=True))

    def grown(self, needed: "Capacity") -> "Capacity":
        """At least what is needed, and twice as much as before where that was too little: growing is rare."""
        return Capacity(
            *(have if need <= have else max(need, 2 * have, 16) for need, have in zip(needed, self, strict=True))
        )


class RopeTable:
    """cos and sin of all positions asked for so far, (T,K/2) each."""

    def __init__(self, config: LlamaConfig):
        self.config = config
        self.cos, self.sin = rope_tables(config, np.arange(0))

    def grow(self, length: int) -> None:
        have = len(self.cos)
        if length > have:
            more = rope_tables(self.config, np.arange(have, max(length, 2 * have, 1024)))
            self.cos, self.sin = (np.concatenate(pair) for pair in zip((self.cos, self.sin), more, strict=True))


def capacity_for(batch: PackedBatch, config: LlamaConfig, threads: int) -> Capacity:
    rows, S = batch.num_tokens, batch.num_sequences
    slots = sum(count for _, count in _kv_splits(batch, config, threads)) if rows == S else 0
    return Capacity(
        rows=rows,
        sampled=len(batch.logit_rows),
        table=sum(map(len, batch.block_tables)),
        tasks=max(slots, rows),  # at most one per row, or one per split
        slots=slots,
        embeddings=sum(len(given.values) for given in batch.embeddings),
    )


def empty_batch(capacity: Capacity, config: LlamaConfig) -> BatchArrays:
    half = config.head_dim // 2

    def integers(*sizes: int) -> np.ndarray:
        return np.zeros(sizes, np.int64)

    def floats(*sizes: int) -> np.ndarray:
        return np.zeros(sizes, np.float32)

    return BatchArrays(
        sizes=integers(6),
        tokens=integers(capacity.rows),
        embeddings=floats(capacity.embeddings, config.hidden_size),
        blocks=integers(capacity.rows),
        slots=integers(capacity.rows),
        cos=floats(capacity.rows, half),
        sin=floats(capacity.rows, half),
        tables=integers(capacity.table),
        tasks=integers(capacity.tasks, 6),
        kv_splits=integers(capacity.rows, 2),
        logit_rows=integers(capacity.sampled),
        runs=integers(capacity.rows, 3),
        sampled_runs=integers(capacity.sampled, 3),
    )


def fill(
    batch: PackedBatch,
    out: BatchArrays,
    rope: RopeTable,
    config: LlamaConfig,
    threads: int,
    separate_prefill: bool,
    adapters: Sequence[str] = (),
) -> int:
    """Fill `out` -> the number of logit rows. adapters: their names, in the order of their numbers."""
    N, sampled = batch.num_tokens, len(batch.logit_rows)
    rope.grow(max(batch.length(s) for s in range(batch.num_sequences)))
    out.kv_splits[:N] = 0
    table_starts = np.cumsum([0, *map(len, batch.block_tables)]).tolist()
    for s, blocks in enumerate(batch.block_tables):
        out.tables[table_starts[s] : table_starts[s + 1]] = blocks
    splits_of = dict(_kv_splits(batch, config, threads))
    slot, num_tasks, row = 0, 0, 0
    new_row = np.zeros(N, np.int64)  # where each row of the batch goes
    numbers = [-1 if name is None else adapters.index(name) for name in batch.adapters]  # (S,)
    pieces, decode_rows = _pieces(batch, separate_prefill, numbers)
    for s, first, count in pieces:
        end, position, table = row + count, batch.positions[s] + first - batch.starts[s], table_starts[s]
        out.tokens[row:end] = batch.token_ids[first : first + count]
        if count == 1:
            new_row[first] = row
            out.blocks[row], out.slots[row] = batch.block_tables[s][position // BLOCK_SIZE], position % BLOCK_SIZE
            out.cos[row], out.sin[row] = rope.cos[position], rope.sin[position]
        else:
            new_row[first : first + count] = np.arange(row, end)
            at = np.arange(position, position + count)
            out.blocks[row:end] = out.tables[table + at // BLOCK_SIZE]
            out.slots[row:end] = at % BLOCK_SIZE
            out.cos[row:end], out.sin[row:end] = rope.cos[at], rope.sin[at]
        num_splits = splits_of.get(s, 0)
        if num_splits:
            out.kv_splits[row, FIRST], out.kv_splits[row, COUNT] = slot, num_splits
            for split in range(num_splits):
                out.tasks[num_tasks] = Task(row, 1, position, table, split, slot)
                num_tasks, slot = num_tasks + 1, slot + 1
        else:
            tile = tokens_per_tile(config.group_size, prefill=row >= decode_rows)
            for start in range(row, end, tile):
                out.tasks[num_tasks] = Task(start, min(tile, end - start), position + start - row, table)
                num_tasks += 1
        row = end
    _fill_embeddings(batch, out, new_row)
    out.logit_rows[:sampled] = new_row[batch.logit_rows]
    _longest_first(out.tasks[:num_tasks])
    out.sizes[[NUM_ROWS, NUM_TASKS, NUM_SAMPLED, NUM_DECODE]] = N, num_tasks, sampled, decode_rows
    out.sizes[[NUM_RUNS, NUM_SAMPLED_RUNS]] = 0
    if max(numbers) >= 0:
        out.sizes[NUM_RUNS] = _fill_runs(out.runs, (numbers[s] for s, _, count in pieces for _ in range(count)))
        of_rows = np.repeat(numbers, np.diff(batch.starts))[batch.logit_rows]
        out.sizes[NUM_SAMPLED_RUNS] = _fill_runs(out.sampled_runs, of_rows.tolist())
    return sampled


def _fill_embeddings(batch: PackedBatch, out: BatchArrays, new_row: np.ndarray) -> None:
    """Copy the embeddings that are given, and point their rows at them."""
    end = 0
    for given in batch.embeddings:
        start, end = end, end + len(given.values)
        out.embeddings[start:end] = given.values
        out.tokens[new_row[given.row : given.row + len(given.values)]] = -1 - np.arange(start, end)


def _fill_runs(out: np.ndarray, numbers: Iterable[int]) -> int:
    """Cut rows, given each one's adapter number or -1, into runs -> how many."""
    row = count = 0
    for number, rows in groupby(numbers):
        start, row = row, row + len(list(rows))
        if number >= 0:
            out[count] = number, start, row  # ADAPTER, START, STOP
            count += 1
    return count


def _pieces(batch: PackedBatch, separate_prefill: bool, numbers: list[int]) -> tuple[list[tuple[int, int, int]], int]:
    """Neighbouring rows that stay together, as (sequence, first row, rows), and the number of decode rows.

    Sequences with the same adapter come one after the other. numbers (S,): each one's, or -1.
    """
    whole = [
        (s, batch.starts[s], batch.starts[s + 1] - batch.starts[s])
        for s in sorted(range(len(numbers)), key=numbers.__getitem__)
    ]
    if not separate_prefill:
        return whole, batch.num_tokens
    old = batch.prefill_rows
    prefill = [(s, first, old[s]) for s, first, _ in whole if old[s]]
    decode = [(s, first + old[s], count - old[s]) for s, first, count in whole if count > old[s]]
    return decode + prefill, batch.num_tokens - sum(batch.prefill_rows)


def _kv_splits(batch: PackedBatch, config: LlamaConfig, threads: int) -> list[tuple[int, int]]:
    """(sequence, number of splits) of those whose context is split: all in a step that has too few tasks otherwise."""
    S = batch.num_sequences
    if threads == 1 or batch.num_tokens != S or S * config.num_key_value_heads >= TASKS_PER_THREAD * threads:
        return []
    counts = [(s, -(-batch.length(s) // SPLIT_SIZE)) for s in range(S)]
    return [(s, count) for s, count in counts if count > 1]


def _longest_first(tasks: np.ndarray) -> None:
    """So that the last task taken, for which all threads wait, is a short one."""
    if len(tasks) > 1:
        whole = tasks[:, POSITION] + tasks[:, TOKENS]
        part = np.minimum(tasks[:, POSITION] + 1 - tasks[:, SPLIT] * SPLIT_SIZE, SPLIT_SIZE)
        work = np.where(tasks[:, SPLIT] == ALL_SPLITS, whole, part) * tasks[:, TOKENS]
        tasks[:] = tasks[np.argsort(-work, kind="stable")]
