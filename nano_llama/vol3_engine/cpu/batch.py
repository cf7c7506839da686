"""A PackedBatch as the arrays that a compiled step reads: positions, blocks, angles, and attention cut into tasks.

Where prefill rows take other kernels than decode rows, all decode rows come first: a sequence's rows then lie in at
most two pieces. A task is one tile of queries: neighbouring rows of one text, for one key/value head. With few rows in
a step, a long context is cut into its parts of 256 positions, so that all threads have work; each row's parts are
folded together afterwards, in the order of positions, as they are within a task: the bits are the same either way.
Not here: the step (kernels/step.py). Tests: tests/vol3/cpu/test_runner.py.
"""

from typing import NamedTuple

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.rope import rope_tables
from nano_llama.vol3_engine.batch import PackedBatch
from nano_llama.vol3_engine.cpu.kernels.attention import PART, tokens_of_tile
from nano_llama.vol3_engine.cpu.kernels.kv_cache import POSITIONS
from nano_llama.vol3_engine.cpu.kernels.step import Batch

TASKS_PER_THREAD = 8  # with so many or more nobody waits long for the last


class Shape(NamedTuple):
    """Room that a step needs."""

    rows: int
    wanted: int  # logit rows
    table: int  # entries of all block tables
    tasks: int
    slots: int  # parts that are shared out

    def fits(self, room: "Shape") -> bool:
        return all(need <= have for need, have in zip(self, room, strict=True))

    def grown(self, needed: "Shape") -> "Shape":
        """At least what is needed, and twice the room where there was too little: growing is rare."""
        return Shape(
            *(have if need <= have else max(need, 2 * have, 16) for need, have in zip(needed, self, strict=True))
        )


class Angles:
    """cos and sin of every position so far asked for, (T,K/2) each."""

    def __init__(self, config: LlamaConfig):
        self.config = config
        self.cos, self.sin = rope_tables(config, np.arange(0))

    def up_to(self, length: int) -> None:
        have = len(self.cos)
        if length > have:
            more = rope_tables(self.config, np.arange(have, max(length, 2 * have, 1024)))
            self.cos, self.sin = (np.concatenate(pair) for pair in zip((self.cos, self.sin), more, strict=True))


def shape_of(batch: PackedBatch, config: LlamaConfig, threads: int) -> Shape:
    rows, S = batch.num_tokens, batch.num_sequences
    slots = sum(parts for _, parts in _splits(batch, config, threads)) if rows == S else 0
    tasks = slots if slots else rows  # at most one for each row
    return Shape(rows, len(batch.logit_rows), sum(map(len, batch.block_tables)), max(tasks, rows), slots)


def empty_batch(shape: Shape, config: LlamaConfig) -> Batch:
    half = config.head_dim // 2

    def integers(*sizes: int) -> np.ndarray:
        return np.zeros(sizes, np.int64)

    def floats(*sizes: int) -> np.ndarray:
        return np.zeros(sizes, np.float32)

    return Batch(
        sizes=integers(4),
        tokens=integers(shape.rows),
        blocks=integers(shape.rows),
        slots=integers(shape.rows),
        cos=floats(shape.rows, half),
        sin=floats(shape.rows, half),
        tables=integers(shape.table),
        tasks=integers(shape.tasks, 6),
        split=integers(shape.rows, 2),
        logit_rows=integers(shape.wanted),
    )


def arrange(
    batch: PackedBatch, out: Batch, angles: Angles, config: LlamaConfig, threads: int, separate_prefill: bool
) -> int:
    """Fill `out` -> the number of logit rows."""
    N, wanted = batch.num_tokens, len(batch.logit_rows)
    angles.up_to(max(batch.length(s) for s in range(batch.num_sequences)))
    out.split[:N] = 0
    first_of_table = np.cumsum([0, *map(len, batch.block_tables)]).tolist()
    for s, blocks in enumerate(batch.block_tables):
        out.tables[first_of_table[s] : first_of_table[s + 1]] = blocks
    split = dict(_splits(batch, config, threads))
    slot, tasks, row = 0, 0, 0
    rows = np.zeros(N, np.int64)  # where each row of the batch is put
    pieces, decode_rows = _pieces(batch, separate_prefill)
    for s, first, count in pieces:
        end, position, table = row + count, batch.positions[s] + first - batch.starts[s], first_of_table[s]
        out.tokens[row:end] = batch.token_ids[first : first + count]
        if count == 1:
            rows[first] = row
            out.blocks[row], out.slots[row] = batch.block_tables[s][position // POSITIONS], position % POSITIONS
            out.cos[row], out.sin[row] = angles.cos[position], angles.sin[position]
        else:
            rows[first : first + count] = np.arange(row, end)
            at = np.arange(position, position + count)
            out.blocks[row:end] = out.tables[table + at // POSITIONS]
            out.slots[row:end] = at % POSITIONS
            out.cos[row:end], out.sin[row:end] = angles.cos[at], angles.sin[at]
        parts = split.get(s, 0)
        if parts:
            out.split[row] = slot, parts
            for part in range(parts):
                out.tasks[tasks] = row, 1, position, table, part, slot
                tasks, slot = tasks + 1, slot + 1
        else:
            tile = tokens_of_tile(config.group_size, of_prompt=row >= decode_rows)
            for start in range(row, end, tile):
                out.tasks[tasks] = start, min(tile, end - start), position + start - row, table, -1, 0
                tasks += 1
        row = end
    out.logit_rows[:wanted] = rows[batch.logit_rows]
    _longest_first(out.tasks[:tasks])
    out.sizes[:] = N, tasks, wanted, decode_rows
    return wanted


def _pieces(batch: PackedBatch, separate_prefill: bool) -> tuple[list[tuple[int, int, int]], int]:
    """Neighbouring rows that stay together, as (sequence, first row, rows), and the number of decode rows."""
    texts = [(s, start, batch.starts[s + 1] - start) for s, start in enumerate(batch.starts[:-1])]
    if not separate_prefill:
        return texts, batch.num_tokens
    prefill = [(s, first, old) for (s, first, _), old in zip(texts, batch.prefill_rows, strict=True) if old]
    decode = [
        (s, first + old, count - old)
        for (s, first, count), old in zip(texts, batch.prefill_rows, strict=True)
        if count > old
    ]
    return decode + prefill, batch.num_tokens - sum(batch.prefill_rows)


def _splits(batch: PackedBatch, config: LlamaConfig, threads: int) -> list[tuple[int, int]]:
    """(sequence, parts) of those whose context is shared out: all of a step that has too few tasks otherwise."""
    S = batch.num_sequences
    if threads == 1 or batch.num_tokens != S or S * config.num_key_value_heads >= TASKS_PER_THREAD * threads:
        return []
    parts = [(s, -(-batch.length(s) // PART)) for s in range(S)]
    return [(s, count) for s, count in parts if count > 1]


def _longest_first(tasks: np.ndarray) -> None:
    """So that the last task taken, for which all wait, is a short one."""
    if len(tasks) > 1:
        work = np.where(
            tasks[:, 4] < 0, tasks[:, 2] + tasks[:, 1], np.minimum(tasks[:, 2] + 1 - tasks[:, 4] * PART, PART)
        )
        tasks[:] = tasks[np.argsort(-work * tasks[:, 1], kind="stable")]
