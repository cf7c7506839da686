"""Where a run stands: the figures that the loop keeps from step to step, and that a checkpoint holds.

Tests: tests/training/test_loop.py.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from nano_llama.training.watchdog import Watchdog


@dataclass(frozen=True)
class Best:
    """The lowest validation loss of a run, nats per token, and the step that had it. The first of equal ones."""

    step: int
    loss: float


@dataclass
class RunState:
    """After `step` updates. The backend's tensors complete it."""

    step: int = 0
    tokens: int = 0
    data_position: int = 0  # batches that went into updates, or were skipped
    loss_sum: float = 0.0  # since the last line of metrics.jsonl
    loss_steps: int = 0
    watchdog: Watchdog = field(default_factory=Watchdog)
    val_loss: float | None = None  # if it was evaluated after this very step
    best: Best | None = None  # of the evaluations so far
    past_best: bool = False  # whether the last of them found a higher loss than `best`

    @property
    def train_loss(self) -> float:
        """Nats per token, mean since the last line of metrics.jsonl."""
        return self.loss_sum / self.loss_steps

    def count_step(self, loss: float, tokens: int) -> None:
        self.step, self.tokens = self.step + 1, self.tokens + tokens
        self.loss_sum, self.loss_steps = self.loss_sum + loss, self.loss_steps + 1
        self.val_loss = None

    def count_evaluation(self, loss: float) -> None:
        """The whole validation split was evaluated after this step."""
        self.val_loss = loss
        if math.isfinite(loss) and (self.best is None or loss < self.best.loss):
            self.best = Best(self.step, loss)
        self.past_best = self.best is not None and not loss <= self.best.loss  # NaN is worse than any number

    def start_line(self) -> None:
        """A line of metrics.jsonl was written."""
        self.loss_sum, self.loss_steps = 0.0, 0

    def to_json(self) -> dict[str, Any]:
        """As a checkpoint holds it."""
        finite = self.val_loss is not None and math.isfinite(self.val_loss)
        return {
            "step": self.step, "tokens": self.tokens, "data_position": self.data_position, "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps, "watchdog": self.watchdog.state(),
            "val_loss": self.val_loss if finite else None, "best": self.best and asdict(self.best),
            "past_best": self.past_best,
        }  # fmt: skip

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "RunState":
        return cls(
            step=saved["step"], tokens=saved["tokens"], data_position=saved["data_position"],
            loss_sum=saved["loss_sum"], loss_steps=saved["loss_steps"], watchdog=Watchdog(**saved["watchdog"]),
            val_loss=saved.get("val_loss"), best=Best(**saved["best"]) if saved.get("best") else None,
            past_best=saved.get("past_best", False),
        )  # fmt: skip
