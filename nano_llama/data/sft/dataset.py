"""Examples as a training run asks for its data: batches, validation, openings to continue, a fingerprint.

data/dataset.py answers the same questions for text. Tests: tests/data/sft/test_dataset.py.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.data.batches import Validation
from nano_llama.data.openings import Opening
from nano_llama.data.sft.batches import ExampleBatches
from nano_llama.data.sft.examples import Examples, open_examples
from nano_llama.data.sft.sequences import Encoded, TokenSequence, encode_examples
from nano_llama.tokenizer import Tokenizer


@dataclass(frozen=True)
class ExampleSplit:
    """num_tokens: of all sequences, of which num_learned are learned and stand for num_bytes of text in UTF-8."""

    encoded: Encoded
    num_tokens: int
    num_learned: int
    num_bytes: int

    @property
    def sequences(self) -> list[TokenSequence]:
        return self.encoded.sequences


class ExampleDataset:
    """Two splits of encoded examples. context: what they were encoded for."""

    def __init__(self, train: Encoded, val: Encoded, tokenizer: Tokenizer, context: int, examples: Examples):
        self.tokenizer, self.context, self.examples = tokenizer, context, examples
        self.vocab_size = tokenizer.vocab_size
        self.train, self.val = _split(train, tokenizer), _split(val, tokenizer)

    @cached_property
    def fingerprint(self) -> str:
        """A hex digest of the tokens, of which are learned, and of the tokenizer."""
        digest = hashlib.sha256(self.tokenizer.fingerprint.encode())
        for split in (self.train, self.val):
            digest.update(f"{len(split.sequences)}".encode())
            for sequence in split.sequences:
                digest.update(f" {len(sequence.ids)} ".encode() + sequence.ids.tobytes() + sequence.learned.tobytes())
        return digest.hexdigest()

    def training_batches(self, batch_size: int, context: int, seed: int, document_mask: bool) -> ExampleBatches:
        """document_mask: several sequences share a row, each of which attends within itself."""
        return ExampleBatches(self.train.sequences, batch_size, context, seed, packed=document_mask)

    def validation_batches(self, batch_size: int, context: int, document_mask: bool) -> ExampleBatches:
        return ExampleBatches(self.val.sequences, batch_size, context, packed=document_mask)

    def validation(self, batch_size: int, context: int, document_mask: bool) -> Validation:
        batches = self.validation_batches(batch_size, context, document_mask)
        return Validation(
            batches.in_order, num_batches=-(-len(batches.rows) // batch_size), num_targets=self.val.num_learned,
            num_bytes=self.val.num_bytes,
        )  # fmt: skip

    def openings(self, count: int, most_tokens: int) -> list[Opening]:
        """Prompts of the validation split, evenly spread, with their answers; those of at most `most_tokens` tokens.

        A sequence that is learned from its first token on has no prompt, and is continued after its first half.
        """
        short = [sequence for sequence in self.val.sequences if _prompt_tokens(sequence) <= most_tokens]
        count = min(count, len(short))
        return [_opening(short[number * len(short) // count], self.tokenizer) for number in range(count)]


def open_example_dataset(
    path: str | Path, tokenizer: Tokenizer, context: int, *, leave_out_long: bool = False,
    variables: Mapping[str, Any] | None = None,
) -> ExampleDataset:  # fmt: skip
    """The examples of a file or folder, encoded. Raises what open_examples and encode_examples raise."""
    examples = open_examples(path)
    train, val = (
        encode_examples(split, tokenizer, context, leave_out_long=leave_out_long, variables=variables)
        for split in (examples.train, examples.val)
    )
    return ExampleDataset(train, val, tokenizer, context, examples)


def _split(encoded: Encoded, tokenizer: Tokenizer) -> ExampleSplit:
    sequences = encoded.sequences
    return ExampleSplit(
        encoded,
        num_tokens=sum(len(sequence.ids) for sequence in sequences),
        num_learned=sum(int(sequence.learned.sum()) for sequence in sequences),
        num_bytes=sum(_learned_bytes(sequence, tokenizer) for sequence in sequences),
    )


def _learned_bytes(sequence: TokenSequence, tokenizer: Tokenizer) -> int:
    """Of the text that its learned tokens stand for; a mark that ends an answer stands for none."""
    answers = (tokenizer.decode(sequence.ids[begin:end].tolist(), continues=True) for begin, end in _answers(sequence))
    return sum(len(text.encode()) for text in answers)


def _opening(sequence: TokenSequence, tokenizer: Tokenizer) -> Opening:
    """Up to its first answer, and that answer."""
    ids: list[int] = sequence.ids.tolist()
    begin, end = _prompt_tokens(sequence), _answers(sequence)[0][1]
    shown = tokenizer.decode(ids[:begin], skip_special=False)
    return Opening(shown, ids[:begin], tokenizer.decode(ids[begin:end], continues=True))


def _prompt_tokens(sequence: TokenSequence) -> int:
    """How many come before its first answer; half of them where that begins the sequence."""
    begin = _answers(sequence)[0][0]
    return begin if begin > 1 else len(sequence.ids) // 2


def _answers(sequence: TokenSequence) -> list[tuple[int, int]]:
    """Where each run of learned tokens begins and ends."""
    steps = np.diff(sequence.learned.astype(np.int8), prepend=0, append=0)
    return list(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))
