"""The watchdog: looks at every loss and gradient before the update, and keeps the batch that made one go wrong.

Two things are wrong: a loss or gradient that is not a number, and a spike, a loss far above what the steps before let
expect. What is then done, the settings on_nan and on_spike say. Not here: the doing (loop.py).
Tests: tests/training/test_watchdog.py.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nano_llama.core import files
from nano_llama.data.batches import Batch

MEMORY = 0.98  # of the running mean: about the last 50 losses
PATIENCE = 50  # losses before the first spike can be told
SIGMAS, NATS = 6.0, 0.5  # a spike is that many standard deviations above the mean, and at least so many nats
MOST_KEPT = 10  # batches in a run's folder
MOST_IN_A_ROW = 10  # batches skipped: then it is not the batch


class StepResult(NamedTuple):
    """What a forward and a backward pass found."""

    loss: float  # nats a token, mean over the counted targets of the step's batches
    grad_norm: float  # length of the whole gradient, before it is clipped


@dataclass
class Watchdog:
    """Remembers the losses so far: a running mean and variance. All fields belong into a checkpoint (`state`)."""

    count: int = 0  # losses seen
    mean: float = 0.0
    variance: float = 0.0
    skipped: int = 0  # batches, of the whole run
    in_a_row: int = 0  # batches skipped since the last update

    def judge(self, result: StepResult) -> str:
        """ "nan", "spike", or "" where all is well."""
        if not math.isfinite(result.loss + result.grad_norm):
            return "nan"
        return "spike" if result.loss > self.limit else ""

    @property
    def limit(self) -> float:
        """The largest loss that is no spike."""
        if self.count < PATIENCE:
            return math.inf
        return self.mean + max(SIGMAS * math.sqrt(self.variance), NATS)

    def learn(self, loss: float) -> None:
        """An update was made. A spike counts as the largest usual loss, so that a new level is learned, slowly."""
        loss = min(loss, self.limit)
        self.count += 1
        weight = max(1.0 - MEMORY, 1.0 / self.count)  # at first the plain mean of all
        step = loss - self.mean
        self.mean += weight * step
        self.variance = (1.0 - weight) * (self.variance + weight * step * step)
        self.in_a_row = 0

    def skip(self) -> None:
        """A batch was left out."""
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1

    @property
    def gives_up(self) -> bool:
        return self.in_a_row >= MOST_IN_A_ROW

    def state(self) -> dict[str, Any]:
        return dict(vars(self))


def first_loss_remark(loss: float, vocab_size: int) -> str:
    """What to say when a fresh model's first loss is not that of a uniform guess, ln V; else nothing.

    Fresh logits are small but not zero, which costs a few tenths of a nat.
    """
    expected = math.log(vocab_size)
    if abs(loss - expected) <= 1.0:
        return ""
    return (
        f"The first loss is {loss:.2f} nats; a fresh model guesses among {vocab_size:,} tokens, ln {vocab_size:,}"
        f" = {expected:.2f}. Are the targets what they should be?"
    )


def keep_batch(
    folder: Path, step: int, what: str, result: StepResult, batches: Sequence[Batch],
    texts: Sequence[str],
) -> Path | None:  # fmt: skip
    """Write a step's batches as step-<step>.npz (tokens and targets, (accumulate,B,T)), and .json with its figures and
    texts, for the eye. Only the first few of a run are kept; None: there are enough."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.npz"))) >= MOST_KEPT:
        return None
    path = folder / f"step-{step:08d}.npz"
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, tokens=np.stack([b[0] for b in batches]), targets=np.stack([b[1] for b in batches]))
    figures = {
        "step": step,
        "what": what,
        "loss": str(result.loss),
        "norm": str(result.grad_norm),
        "texts": list(texts),
    }
    files.write_text(path.with_suffix(".json"), json.dumps(figures, indent=1, ensure_ascii=False))
    return path
