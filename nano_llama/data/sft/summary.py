"""What is in the data, to be checked before a step: counts, lengths, what is cut, and samples with what is learned.

Plain data: printing it is the command's. Tests: tests/data/sft/test_summary.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from nano_llama.data.sft.batches import ExampleBatches
from nano_llama.data.sft.sequences import Cut, Encoded, TokenSequence
from nano_llama.tokenizer import Tokenizer

SAMPLES = 3
QUANTILES = (0.0, 0.5, 0.9, 1.0)


@dataclass(frozen=True)
class Sample:
    """A sequence as text. pieces: (text, whether it is learned); joined they are all of it, special tokens included."""

    where: str
    pieces: list[tuple[str, bool]]


@dataclass(frozen=True)
class Summary:
    """sequences: what examples became (long texts and some conversations are several). tokens: all ids, of which
    learned_tokens are learned. lengths: {quantile: ids of a sequence}. rows: of an epoch; fill: the share of their
    places in the context that hold a token. cut, left_out: what does not fit.
    """

    examples: int
    sequences: int
    tokens: int
    learned_tokens: int
    lengths: dict[float, int]
    rows: int
    fill: float
    cut: list[Cut]
    left_out: list[Cut]
    samples: list[Sample]


def summarize(encoded: Encoded, batches: ExampleBatches, tokenizer: Tokenizer) -> Summary:
    """batches: made of these sequences."""
    sequences = encoded.sequences
    lengths = np.array([len(sequence.ids) for sequence in sequences])
    picked = sorted({round(place * (len(sequences) - 1) / (SAMPLES - 1)) for place in range(SAMPLES)})
    quantiles = np.quantile(lengths, QUANTILES, method="higher").tolist()
    return Summary(
        examples=len({one.where for one in sequences} | {one.where for one in encoded.left_out}),
        sequences=len(sequences),
        tokens=int(lengths.sum()),
        learned_tokens=sum(int(sequence.learned.sum()) for sequence in sequences),
        lengths=dict(zip(QUANTILES, quantiles, strict=True)),
        rows=len(batches.rows),
        fill=int((lengths - 1).sum()) / (len(batches.rows) * batches.context),
        cut=encoded.cut,
        left_out=encoded.left_out,
        samples=[Sample(sequences[number].where, marked_text(sequences[number], tokenizer)) for number in picked],
    )


def marked_text(sequence: TokenSequence, tokenizer: Tokenizer) -> list[tuple[str, bool]]:
    """The sequence's text in pieces that are learned or not, one after the other."""
    pieces: list[tuple[str, bool]] = []
    pairs: Sequence[tuple[int, bool]] = list(zip(sequence.ids.tolist(), sequence.learned.tolist(), strict=True))
    for learned, group in groupby(pairs, key=lambda pair: pair[1]):
        ids = [number for number, _ in group]
        pieces.append((tokenizer.decode(ids, skip_special=False, continues=bool(pieces)), learned))
    return pieces
