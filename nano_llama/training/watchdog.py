"""The watchdog: checks every loss and gradient before the update.

Two things are faults: a loss or gradient that is NaN or infinite, and a spike, a loss far above those of the steps
before. bad_batches.py does then what the settings on_nan and on_spike say. Tests: tests/training/test_watchdog.py.
"""

import math
from dataclasses import dataclass
from typing import Any

from nano_llama.training.backend import StepResult

MEMORY = 0.98  # of the running mean: about the last 50 losses
MIN_LOSSES = 50  # losses before the first spike can be recognized
SIGMAS, NATS = 6.0, 0.5  # a spike is this many standard deviations, and at least this many nats, above the mean
MOST_IN_A_ROW = 10  # batches skipped: beyond, the batches are not to blame


@dataclass
class Watchdog:
    """A running mean and variance of the losses so far. All fields belong in a checkpoint (`state`)."""

    count: int = 0  # losses seen
    mean: float = 0.0
    variance: float = 0.0
    skipped: int = 0  # batches, of the whole run
    in_a_row: int = 0  # batches skipped since the last update

    def check(self, result: StepResult) -> str:
        """ "nan", "spike", or "" if all is well."""
        if not math.isfinite(result.loss + result.grad_norm):
            return "nan"
        return "spike" if result.loss > self.limit else ""

    @property
    def limit(self) -> float:
        """The largest loss that is not a spike."""
        if self.count < MIN_LOSSES:
            return math.inf
        return self.mean + max(SIGMAS * math.sqrt(self.variance), NATS)

    def learn(self, loss: float) -> None:
        """An update was made. A spike counts as the largest usual loss, so a new level is learned, but slowly."""
        loss = min(loss, self.limit)
        self.count += 1
        weight = max(1.0 - MEMORY, 1.0 / self.count)  # at first the plain mean
        step = loss - self.mean
        self.mean += weight * step
        self.variance = (1.0 - weight) * (self.variance + weight * step * step)
        self.in_a_row = 0

    def skip(self) -> None:
        """A batch was skipped."""
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1

    @property
    def gives_up(self) -> bool:
        return self.in_a_row >= MOST_IN_A_ROW

    def state(self) -> dict[str, Any]:
        return dict(vars(self))
