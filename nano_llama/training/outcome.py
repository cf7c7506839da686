"""How a run can end: with a result, by Ctrl-C, by a loss that diverges, or before it begins; and the messages for it.

Tests: tests/training/test_loop.py.
"""

import math
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.units import plural
from nano_llama.training.backend import StepResult
from nano_llama.training.checkpoint import list_checkpoints
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.record import StepRecord
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.settings import TrainSettings


class TrainingInterrupted(NanoLlamaError):
    """Ctrl-C or SIGTERM: progress is saved. The exit code is 128 + the signal's number."""

    exit_code = 130


class TrainingDiverged(NanoLlamaError):
    """The loss or gradient is NaN or infinite, or the loss far too large."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a run ended."""

    out: Path
    last: StepRecord  # of the last step
    elapsed_s: float  # of all sessions together, saving included
    best: Evaluation | None = None  # of the run's model, where that is not of the last step (final_model.py)

    @property
    def steps(self) -> int:
        return self.last.step

    @property
    def tokens(self) -> int:
        return self.last.tokens

    @property
    def train_loss(self) -> float:
        """Nats per token, mean over the last line of metrics.jsonl."""
        return self.last.train_loss

    @property
    def model_step(self) -> int:
        """The step whose weights are the run's model."""
        return self.steps if self.last.model_step is None else self.last.model_step

    @property
    def evaluation(self) -> Evaluation | None:
        """Of the run's model; None if evaluations were turned off, or there was no time for the last one."""
        return self.best or self.last.evaluation

    @property
    def tokens_per_second(self) -> float:
        """Of training alone."""
        return self.last.session.tokens_per_second

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "steps": self.steps,
            "tokens": self.tokens,
            "train_loss": _finite(self.train_loss),
            "val_loss": _finite(self.evaluation.loss) if self.evaluation else None,
            "val_bits_per_byte": _finite(self.evaluation.bits_per_byte) if self.evaluation else None,
            **({"val_accuracy": self.evaluation.accuracy} if self.evaluation and self.evaluation.accuracy else {}),
            **({"val_partial": True} if self.evaluation and self.evaluation.partial else {}),
            "model_step": self.model_step,
            **({"last_val_loss": _finite(self.last.evaluation.loss)} if self.best and self.last.evaluation else {}),
            "tokens_per_second": self.tokens_per_second,
            "elapsed_s": self.elapsed_s,
        }


def _finite(loss: float) -> float | None:
    """JSON has no word for other numbers."""
    return loss if math.isfinite(loss) else None


def reached_goal(settings: TrainSettings, loss: float | None) -> bool:
    """Whether a validation loss (None: not evaluated) is `stop_loss` or less."""
    return settings.stop_loss is not None and loss is not None and loss <= settings.stop_loss


def goal_was_reached(settings: TrainSettings, run: Path, loss: float) -> UserError:
    return UserError(
        f"The run in {run} has ended: its validation loss is {loss:.4f}, and stop_loss is {settings.stop_loss:g}.",
        hint="Set a lower --stop-loss.",
    )


def nothing_left(settings: TrainSettings, run: Path, step: int, progress: float, left_s: float | None) -> UserError:
    """No step can be made: the run had ended before (`progress` 1), or its minutes are over. left_s: what is left."""
    if progress >= 1.0:
        more = "more --epochs, or a larger --max-steps" if settings.from_examples else "a larger --max-steps"
        if settings.max_minutes is not None:
            more = f"more time, for example  --max-minutes {2 * settings.max_minutes:g}"
        return UserError(
            f"The run in {run} has ended: {plural(step, 'step')} {'is' if step == 1 else 'are'} done.",
            hint=f"Give it {more}."
            if settings.from_examples
            else f"Give it {more}, or start a new run with  --init-from {run}",
        )
    assert settings.max_minutes is not None and left_s is not None
    minutes = f"No time is left for training: of --max-minutes {settings.max_minutes:g}"
    if left_s <= 0:
        return UserError(
            f"{minutes} none were left after reading data and building the model.",
            hint="Try the same command again (the data is prepared now), or increase --max-minutes.",
        )
    return UserError(
        f"{minutes} {left_s:.0f} s are left, which saving the run takes.",
        hint="Increase --max-minutes.",
    )


def interrupted(run: RunFolder, step: int, number: int) -> TrainingInterrupted:
    """By a signal, after the step during which it came."""
    what = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    error = TrainingInterrupted(
        f"Stopped by {what} after {plural(step, 'step')}; progress saved in {run.path}.",
        hint=f"Resume with:  {run.resume}",
    )
    error.exit_code = 128 + number
    return error


def interrupted_at_once(run: RunFolder) -> TrainingInterrupted:
    """By a second Ctrl-C: nothing is saved after it."""
    checkpoints = list_checkpoints(run.checkpoints)
    saved = f"the last checkpoint is {checkpoints[-1]}" if checkpoints else "no checkpoint was saved yet"
    return TrainingInterrupted(f"Stopped at once by a second Ctrl-C; {saved}.", hint=f"Resume with:  {run.resume}")


def diverged(
    settings: TrainSettings, run: Path, step: int, fault: str, result: StepResult, lr: float, where: str
) -> TrainingDiverged:
    """fault: "nan" or "spike", as the watchdog names it. where: the batch is saved, or ""."""
    what = "The loss or its gradient is NaN or infinite" if fault == "nan" else f"The loss jumped to {result.loss:.4g}"
    checkpoints = list_checkpoints(run / "checkpoints")
    last = f" The last good weights are in {checkpoints[-1]}." if checkpoints else ""
    return TrainingDiverged(
        f"{what} at step {step:,} (learning rate {lr:.3g}).{where}{last}",
        hint=f"Try a lower learning rate, for example  --lr {settings.lr / 3:.1g}    or skip such batches:"
        f"  --on-{fault} skip",
    )
