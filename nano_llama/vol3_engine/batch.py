"""PackedBatch: what one step computes. Sequences lie one after the other, so no row is padding.

    step with a decoding sequence A (5 tokens cached) and the first 3 tokens of a new prompt B:

        token_ids     [ a5 | b0 b1 b2 ]      N = 4 rows
        starts        [ 0,   1,        4 ]   rows starts[s]:starts[s+1] belong to sequence s
        positions     [ 5,   0 ]             of each sequence's first row; its other rows follow on
        prefill_rows  [ 0,   3 ]             how many of each sequence's rows are of its prompt; they come first
        block_tables  [[7], [2]]             token p of sequence s is cached in block block_tables[s][p // BLOCK_SIZE]
        logit_rows    [ 0 ]                  B's prompt is not read to its end yet, so only A chooses a token

Not here: who is in the batch (scheduler.py), tensors (runner/). Tests: tests/vol3/test_runner_torch.py.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class PackedBatch:
    """N tokens of S sequences. Plain lists: a runner makes of them what its kernels like."""

    token_ids: list[int]  # (N,)
    starts: list[int]  # (S+1,) ascending, from 0 to N; every sequence has at least one row
    positions: list[int]  # (S,)
    prefill_rows: list[int]  # (S,)
    block_tables: list[list[int]]  # (S,) blocks that cover the positions 0 ... of the sequence's last row, or more
    logit_rows: list[int]  # (R,) rows whose logits are wanted, ascending: last rows of sequences

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_sequences(self) -> int:
        return len(self.positions)

    def length(self, s: int) -> int:
        """Tokens of sequence s that its last row sees, itself included."""
        return self.positions[s] + self.starts[s + 1] - self.starts[s]
