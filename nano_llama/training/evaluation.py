"""What a validation loss is: the whole split in consecutive windows, and the figures that follow from it.

Every position that has a next token is counted once. A window starts without a past, so a longer context gives a lower
loss on the same text. Tests: tests/training/test_evaluation.py.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nano_llama.core.loss import IGNORE_INDEX, bits_per_byte
from nano_llama.data.batches import Validation, validation
from nano_llama.training.budget import Clock

# A batch: tokens (B,T), targets (B,T), IGNORE_INDEX not counted, and where rows are packed documents (B,T)
# -> nats, summed over the counted targets
LossSum = Callable[..., float]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The loss on one split. `tokens` are those predicted, `bytes` the text they stand for.

    partial: only the head of the split was read, for lack of time; `bytes` are then in proportion to its tokens.
    early: training has not come to all that the split asks for, so the loss says little of the model. accuracy: of
    answers about pictures, by kind of question.
    """

    loss: float  # nats per token, the mean
    tokens: int
    bytes: int
    seconds: float
    partial: bool = False
    early: bool = False
    accuracy: dict[str, float] = field(default_factory=dict)

    @property
    def counts(self) -> bool:
        """Whether a model may be chosen by it."""
        return not self.partial and not self.early

    @property
    def perplexity(self) -> float:
        """exp(loss): as uncertain as a choice among this many equally likely tokens."""
        return math.exp(min(self.loss, 700.0))  # beyond, exp is infinite

    @property
    def bits_per_byte(self) -> float:
        """All nats as bits, over all bytes of text: comparable between tokenizers, and with compressors."""
        return bits_per_byte(self.loss, self.tokens, self.bytes)

    def to_json(self) -> dict[str, Any]:
        return {
            "loss": self.loss,
            "perplexity": self.perplexity,
            "bits_per_byte": self.bits_per_byte,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "seconds": self.seconds,
            **({"partial": True} if self.partial else {}),
        }


def evaluate_split(loss_sum: LossSum, split: Any, context: int, batch_size: int, **options: Any) -> Evaluation | None:
    """Evaluate a `TokenSplit` whole; `batch_size` changes the memory used, not the result. options: of `evaluate`."""
    return evaluate(loss_sum, validation(split, split.num_bytes, context, batch_size), **options)


def evaluate(
    loss_sum: LossSum,
    data: Validation,
    *,
    give_up: Callable[[float], bool] = lambda seconds: False,
    on_batch: Callable[[int], None] = lambda tokens: None,
    clock: Clock = time.monotonic,
    keep_head: bool = False,
) -> Evaluation | None:
    """The loss on all batches of a split.

    give_up is called before each batch with the seconds that the last one took (0 before the first). When it returns
    True, the result is None, or with `keep_head` what the batches so far give. on_batch is called with the number of
    tokens that each batch counted.
    """
    begin = before = clock()
    nats, counted = 0.0, 0
    for batch in data.batches():
        last, before = before, clock()
        if give_up(before - last):
            if not (keep_head and counted):
                return None
            head = round(data.num_bytes * counted / data.num_targets)
            return Evaluation(loss=nats / counted, tokens=counted, bytes=head, seconds=before - begin, partial=True)
        nats += loss_sum(*batch)
        here = int(np.count_nonzero(batch[1] != IGNORE_INDEX))
        counted += here
        on_batch(here)
    return Evaluation(loss=nats / max(counted, 1), tokens=counted, bytes=data.num_bytes, seconds=clock() - begin)
