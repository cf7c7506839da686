"""How a run can end: with a result, by Ctrl-C, or by a loss that goes wrong; and the words for it.

Not here: what leads there (loop.py). Tests: tests/training/test_loop.py.
"""

import math
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.training.checkpoint import list_checkpoints
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.settings import TrainSettings
from nano_llama.training.watchdog import StepResult


class TrainingInterrupted(NanoLlamaError):
    """Ctrl-C or SIGTERM: what was learned so far is kept. The exit code is 128 + the signal's number."""

    exit_code = 130


class TrainingDiverged(NanoLlamaError):
    """The loss or a gradient is no longer a number, or far too large."""


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a run ended. `evaluation` is None where there was no time or wish for one."""

    out: Path
    steps: int
    tokens: int
    train_loss: float  # nats a token, mean over the last line of metrics.jsonl
    evaluation: Evaluation | None
    tokens_per_second: float  # training alone
    elapsed_s: float  # of all sessions together

    def to_json(self) -> dict[str, Any]:
        return {
            "out": str(self.out),
            "steps": self.steps,
            "tokens": self.tokens,
            "train_loss": self.train_loss if math.isfinite(self.train_loss) else None,
            "val_loss": self.evaluation.loss if self.evaluation else None,
            "val_bits_per_byte": self.evaluation.bits_per_byte if self.evaluation else None,
            "tokens_per_second": self.tokens_per_second,
            "elapsed_s": self.elapsed_s,
        }


def reached_goal(settings: TrainSettings, state: Mapping[str, Any]) -> bool:
    """Whether the validation loss that a checkpoint's state tells is as low as `stop_loss` wishes."""
    loss = state.get("val_loss")
    return settings.stop_loss is not None and loss is not None and loss <= settings.stop_loss


def goal_was_reached(settings: TrainSettings, run: Path, loss: float) -> UserError:
    return UserError(
        f"The run in {run} has ended: its validation loss is {loss:.4f}, and stop_loss is {settings.stop_loss:g}.",
        hint="Give it a lower --stop-loss.",
    )


def nothing_left(
    settings: TrainSettings, run: Path, step: int, progress: float, left_s: float | None, step_s: float
) -> UserError:
    """No step can be made: the run had ended before (`progress` 1), or a step does not fit into its minutes.

    left_s: seconds that are left of them. step_s: what a step takes, about.
    """
    if progress >= 1.0:
        more = "a larger --max-steps"
        if settings.max_minutes is not None:
            more = f"more time, for example  --max-minutes {2 * settings.max_minutes:g}"
        return UserError(
            f"The run in {run} has ended: {step:,} steps are done.",
            hint=f"Give it {more}, or begin a new run with  --init-from {run}",
        )
    assert settings.max_minutes is not None and left_s is not None
    minutes = f"No time is left for training: of {settings.max_minutes:g} minutes"
    if left_s <= 0:
        return UserError(
            f"{minutes} none was left after reading data and building the model.",
            hint="Try the same command again (the data is ready now), or give a larger --max-minutes.",
        )
    return UserError(
        f"{minutes} {left_s:.0f} s are left, and a step takes about {step_s:.0f} s.",
        hint="Give a larger --max-minutes, or make steps shorter: a smaller --batch-size, --context or --model.",
    )


def interrupted(run: Path, step: int, number: int) -> TrainingInterrupted:
    """By a signal, after the step that it came in."""
    what = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    error = TrainingInterrupted(
        f"Stopped by {what} after {step:,} steps; all is kept in {run}.",
        hint=f"Go on with:  nano-llama train --out {run} --resume",
    )
    error.exit_code = 128 + number
    return error


def interrupted_at_once(run: Path) -> TrainingInterrupted:
    """By a second Ctrl-C: only checkpoints are kept."""
    checkpoints = list_checkpoints(run / "checkpoints")
    kept = f"what is kept is {checkpoints[-1]}" if checkpoints else "no checkpoint had been kept yet"
    return TrainingInterrupted(
        f"Stopped at once by a second Ctrl-C; {kept}.", hint=f"Go on with:  nano-llama train --out {run} --resume"
    )


def diverged(
    settings: TrainSettings, run: Path, step: int, wrong: str, result: StepResult, lr: float, kept: str
) -> TrainingDiverged:
    """wrong: "nan" or "spike", as the watchdog names it. kept: where the batch is."""
    not_a_number, jumped = "The loss or its gradient is no longer a number", f"The loss jumped to {result.loss:.4g}"
    what = not_a_number if wrong == "nan" else jumped
    checkpoints = list_checkpoints(run / "checkpoints")
    where = f" The last good weights are in {checkpoints[-1]}." if checkpoints else ""
    return TrainingDiverged(
        f"{what} at step {step:,} (learning rate {lr:.3g}).{kept}{where}",
        hint=f"Try a smaller learning rate, for example  --lr {settings.lr / 3:.1g}    or leave such batches out:"
        f"  --on-{wrong} skip",
    )
