"""Sequences -> batches: shuffled for training from any position on, or all of them in order for validation.

Packed, a row holds several sequences, and a third array says which each token belongs to: attention stays within it
(vol2_torch/packing.py, vol1_numpy/masks.py), so that each is computed as if it were alone. Without packing a row holds
one sequence with padding after it, which no token before it sees, so that no mask is needed: Volume 1's training has
none.

Tests: tests/data/sft/test_batches.py, tests/parity/test_sft_gradients.py.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import Batch, BatchStream, shuffled
from nano_llama.data.packing import pack
from nano_llama.data.sft.sequences import TokenSequence

PADDING = 0  # any id: nothing learns from it or sees it
WIDTHS = 32  # a batch is as wide as its longest row, in steps of this: few shapes, little padding


class ExampleBatches(BatchStream):
    """An endless stream of (tokens, targets), or of (tokens, targets, documents) where packed, each (B,T) int64.

    targets[b,t] is the token after tokens[b,t] where it is learned, else IGNORE_INDEX. An epoch shows each sequence
    once; the order is a function of (seed, position) alone, as in data/batches.py. T: at most `context`.
    documents: the number of each token's sequence, -1 for padding.
    """

    def __init__(
        self, sequences: Sequence[TokenSequence], batch_size: int, context: int, seed: int = 0, packed: bool = True
    ):
        """sequences: of at most context + 1 ids. packed: several in a row."""
        if batch_size < 1 or context < 1:
            raise UserError(f"batch size {batch_size}, context {context}: both must be at least 1.")
        lengths = [len(sequence.ids) - 1 for sequence in sequences]  # tokens; the last id is a target only
        if not lengths:
            raise UserError("There are no sequences to make batches of.", hint="Give at least one example.")
        if max(lengths) > context:
            longest = lengths.index(max(lengths))
            raise UserError(
                f"{sequences[longest].where}: {lengths[longest]:,} tokens in a context of {context:,}.",
                hint="Encode the examples with the same context.",
            )
        self.rows = pack(lengths, context) if packed else [[number] for number in range(len(lengths))]
        super().__init__(batch_size, rows_per_epoch=len(self.rows))
        self.sequences, self.context, self.seed, self.packed = sequences, context, seed, packed

    def at(self, position: int) -> Batch:
        """Rows of the order that the seed draws for each epoch."""
        drawn = np.arange(position * self.batch_size, (position + 1) * self.batch_size)
        epochs, indices = np.divmod(drawn, len(self.rows))
        return self._batch(shuffled(indices, len(self.rows), self.seed, epochs).tolist())

    def in_order(self) -> Iterator[Batch]:
        """All rows once, in batches of batch_size rows or fewer."""
        for first in range(0, len(self.rows), self.batch_size):
            yield self._batch(range(first, min(first + self.batch_size, len(self.rows))))

    def _batch(self, rows: Sequence[int]) -> Batch:
        used = max(sum(len(self.sequences[number].ids) - 1 for number in self.rows[row]) for row in rows)
        shape = len(rows), min(self.context, -(-used // WIDTHS) * WIDTHS)
        tokens = np.full(shape, PADDING, np.int64)  # (B,T)
        targets = np.full(shape, IGNORE_INDEX, np.int64)  # (B,T)
        documents = np.full(shape, -1, np.int64)  # (B,T)
        for place, row in enumerate(rows):
            start = 0
            for number in self.rows[row]:
                sequence = self.sequences[number]
                end = start + len(sequence.ids) - 1
                tokens[place, start:end] = sequence.ids[:-1]
                targets[place, start:end] = np.where(sequence.learned[1:], sequence.ids[1:], IGNORE_INDEX)
                documents[place, start:end] = number
                start = end
        return (tokens, targets, documents) if self.packed else (tokens, targets)
