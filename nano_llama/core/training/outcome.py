"""How a run can end: with a result, by Ctrl-C, or by a loss that is no longer a number.

Not here: what leads there (loop.py). Tests: tests/core/training/test_loop.py.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.training.evaluation import Evaluation


class TrainingInterrupted(NanoLlamaError):
    """Ctrl-C: what was learned so far is kept."""

    exit_code = 130


class TrainingDiverged(NanoLlamaError):
    """The loss or a gradient is no longer a number."""


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
