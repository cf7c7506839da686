"""PackedBatch: the rows of one step, sequence after sequence, without padding.

    step with a decoding sequence A (5 tokens cached) and the first 3 tokens of a new prompt B:

        token_ids     [ a5 | b0 b1 b2 ]      N = 4 rows
        starts        [ 0,   1,        4 ]   rows starts[s]:starts[s+1] belong to sequence s
        positions     [ 5,   0 ]             of each sequence's first row; its other rows follow
        prefill_rows  [ 0,   3 ]             how many of each sequence's rows hold prompt tokens; they come first
        block_tables  [[7], [2]]             token p of sequence s is cached in block block_tables[s][p // BLOCK_SIZE]
        adapters      [ "poet", None ]       by whose adapter its rows are computed; None: by the base model alone
        embeddings    [ ]                    rows whose token is not looked up, since the embedding is given: images
        logit_rows    [ 0 ]                  B's prompt is not complete yet, so only A samples a token

Tests: tests/vol3/test_batch.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np


class Embeddings(NamedTuple):
    """Neighbouring rows that begin as these values: what their tokens' embeddings would be is not looked up."""

    row: int  # the first of them: of a chunk, or of a batch
    values: np.ndarray  # (rows,D) float32


class Chunk(NamedTuple):
    """The consecutive tokens of one sequence that a step computes."""

    token_ids: list[int]
    position: int  # of the first of them
    prompt_length: int  # of the sequence: its tokens before this position are prefill rows, the others decode rows
    block_table: list[int]
    num_logits: int = 1  # the last so many rows' logits are needed
    adapter: str | None = None  # its name
    embeddings: Sequence[Embeddings] = ()  # rows counted from the chunk's first


@dataclass(frozen=True)
class PackedBatch:
    """N tokens of S sequences, as plain lists. Make one with `pack`."""

    token_ids: list[int]  # (N,)
    starts: list[int]  # (S+1,) ascending, from 0 to N; every sequence has at least one row
    positions: list[int]  # (S,)
    prefill_rows: list[int]  # (S,)
    block_tables: list[list[int]]  # (S,) blocks for the positions from 0 to the sequence's last row, or more
    adapters: list[str | None]  # (S,) names
    logit_rows: list[int]  # (R,) rows whose logits are needed, ascending
    embeddings: list[Embeddings] = field(default_factory=list)  # in the order of rows

    @classmethod
    def pack(cls, chunks: Iterable[Chunk]) -> "PackedBatch":
        """The chunks one after the other, in their order. Block tables are copied, so they may grow afterwards."""
        batch = cls([], [0], [], [], [], [], [])
        for chunk in chunks:
            start, count = len(batch.token_ids), len(chunk.token_ids)
            batch.token_ids.extend(chunk.token_ids)
            batch.starts.append(len(batch.token_ids))
            batch.positions.append(chunk.position)
            batch.prefill_rows.append(min(max(chunk.prompt_length - chunk.position, 0), count))
            batch.block_tables.append(list(chunk.block_table))
            batch.adapters.append(chunk.adapter)
            batch.embeddings.extend(Embeddings(start + row, values) for row, values in chunk.embeddings)
            batch.logit_rows.extend(range(len(batch.token_ids) - chunk.num_logits, len(batch.token_ids)))
        return batch

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_sequences(self) -> int:
        return len(self.positions)

    def adapter_of_rows(self) -> list[str | None]:
        """(N,) each row's."""
        return [name for s, name in enumerate(self.adapters) for _ in range(self.starts[s], self.starts[s + 1])]

    def length(self, s: int) -> int:
        """Tokens of sequence s that its last row attends to, itself included."""
        return self.positions[s] + self.starts[s + 1] - self.starts[s]
