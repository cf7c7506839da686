"""Who watches a run: the loop tells an observer what happens, and never prints anything itself.

`Progress` is the observer that stays silent, and the base of others: progress_bar.py draws, tests record. Not here:
anything drawn. Tests: tests/training/test_progress_bar.py, test_loop.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nano_llama.core.config import LlamaConfig
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.preflight import Preflight
from nano_llama.training.samples import Sample
from nano_llama.training.settings import TrainSettings


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known before the first step."""

    settings: TrainSettings
    config: LlamaConfig
    out: Path
    device: str
    train_tokens: int
    val_tokens: int
    resumed_at: int | None  # the step of the checkpoint, or None for a new run
    preflight: Preflight  # what is expected of the run


@dataclass(frozen=True, kw_only=True)
class StepFacts:
    """What is known after a step."""

    step: int
    progress: float  # 0 to 1
    tokens: int  # seen so far
    train_loss: float  # nats a token, mean since the last line of metrics.jsonl
    bits_per_byte: float  # the same, by the training split's bytes a token
    lr: float  # of this step
    grad_norm: float  # of this step, before clipping
    tokens_per_second: float  # of this session
    mfu: float | None  # 0 to 1; None where it is not known
    data_stall: float  # share of the time, 0 to 1, that steps waited for data
    peak_memory: int  # bytes
    seconds_left: float  # until the run is over


class Progress:
    """Hears of everything and says nothing."""

    def preparing(self, what: str, done: int, total: int | None) -> None:
        """Text is read and turned into tokens: `done` of `total` bytes (None: unknown)."""

    def started(self, facts: RunFacts) -> None:
        """The first step comes next."""

    def stepped(self, facts: StepFacts) -> None:
        """One update is done."""

    def evaluating(self, tokens: int, total: int) -> None:
        """So many tokens of the validation split are counted."""

    def evaluated(self, step: int, evaluation: Evaluation) -> None:
        """The validation loss at a step."""

    def sampled(self, step: int, samples: Sequence[Sample]) -> None:
        """What the model writes at a step."""

    def remark(self, text: str) -> None:
        """Something the user should know, in one sentence."""

    def ended(self) -> None:
        """The run is over, well or not: put the screen in order."""
