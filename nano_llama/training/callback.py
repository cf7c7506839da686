"""Callbacks: the loop reports what happens to one of them, and never prints anything itself.

`Callback` does nothing, and is the base of others: progress_bar.py draws, finetune/examination.py keeps what it found
before the first step, tests record. `Callbacks` tells several.
Tests: tests/training/test_progress_bar.py, test_loop.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nano_llama.core.vision.config import ModelConfig
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.preflight import Preflight
from nano_llama.training.record import StepRecord
from nano_llama.training.samples import Sample
from nano_llama.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known before the first step."""

    settings: TrainSettings
    config: ModelConfig
    out: Path
    device: str
    deterministic: bool  # whether the same run gives the same bits again
    train_tokens: int
    val_tokens: int
    resumed_at: int | None  # the step of the checkpoint, or None for a new run
    preflight: Preflight  # what is expected of the run


class Callback:
    """Is told of everything and does nothing."""

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Text is being read and tokenized: `done` of `total` bytes (None: unknown)."""

    def started(self, facts: RunFacts) -> None:
        """The first step comes next."""

    def stepped(self, record: StepRecord) -> None:
        """One update is done."""

    def evaluating(self, tokens: int, total: int) -> None:
        """This many tokens of the validation split are evaluated."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """The validation loss at a step."""

    def sampled(self, step: int, samples: Sequence[Sample]) -> None:
        """What the model generated at a step."""

    def notice(self, text: str) -> None:
        """Something the user should know, in one sentence."""

    def ended(self) -> None:
        """The run is over, whether or not it succeeded: restore the screen."""


class Callbacks(Callback):
    """Tells each of several, in this order."""

    def __init__(self, *callbacks: Callback):
        self.callbacks = callbacks

    def preparing(self, what: str, done: int, total: int | None) -> None:
        for callback in self.callbacks:
            callback.preparing(what, done, total)

    def started(self, facts: RunFacts) -> None:
        for callback in self.callbacks:
            callback.started(facts)

    def stepped(self, record: StepRecord) -> None:
        for callback in self.callbacks:
            callback.stepped(record)

    def evaluating(self, tokens: int, total: int) -> None:
        for callback in self.callbacks:
            callback.evaluating(tokens, total)

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        for callback in self.callbacks:
            callback.evaluated(step, evaluation)

    def sampled(self, step: int, samples: Sequence[Sample]) -> None:
        for callback in self.callbacks:
            callback.sampled(step, samples)

    def notice(self, text: str) -> None:
        for callback in self.callbacks:
            callback.notice(text)

    def ended(self) -> None:
        for callback in self.callbacks:
            callback.ended()
