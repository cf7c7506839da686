"""What a validation loss is: the whole split in consecutive windows, and the figures that follow from it.

Every position that has a next token is counted once; a window begins without a past, so a longer context gives a lower
loss on the same text. Not here: the model that judges the tokens (each volume brings its own).
Tests: tests/training/test_evaluation.py.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nano_llama.core.loss import IGNORE_INDEX, bits_per_byte
from nano_llama.data.batches import validation_batches
from nano_llama.training.budget import Clock

# (tokens (B,T), targets (B,T), IGNORE_INDEX not counted) -> nats, summed over the counted targets
SumNats = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The loss on one split. `tokens` are those predicted, `bytes` the text they stand for."""

    loss: float  # nats a token, the mean
    tokens: int
    bytes: int
    seconds: float

    @property
    def perplexity(self) -> float:
        """exp(loss): as uncertain as a choice among so many equally likely tokens."""
        return math.exp(min(self.loss, 700.0))  # beyond, exp is infinite

    @property
    def bits_per_byte(self) -> float:
        """All nats as bits, over all bytes of text: comparable between tokenizers, and with compressors."""
        return bits_per_byte(self.loss, self.tokens, self.bytes)

    def to_json(self) -> dict[str, float]:
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "seconds": self.seconds,
        }


def evaluate_split(
    sum_nats: SumNats,
    split: Any,
    context: int,
    batch_size: int,
    *,
    give_up: Callable[[float], bool] = lambda seconds: False,
    on_batch: Callable[[int], None] = lambda tokens: None,
    clock: Clock = time.monotonic,
) -> Evaluation | None:
    """Evaluate a `TokenSplit` whole; `batch_size` changes the memory used, not the result.

    `give_up` hears before every batch how long the one before took (0 before the first): when it says True, the answer
    is None. `on_batch` hears how many tokens each batch has counted.
    """
    begin = before = clock()
    nats, counted = 0.0, 0
    for tokens, targets in validation_batches(split, context, batch_size):  # (B,T) each
        last, before = before, clock()
        if give_up(before - last):
            return None
        nats += sum_nats(tokens, targets)
        here = int(np.count_nonzero(targets != IGNORE_INDEX))
        counted += here
        on_batch(here)
    return Evaluation(loss=nats / max(counted, 1), tokens=counted, bytes=split.num_bytes, seconds=clock() - begin)
