"""The record of one step: made once by the loop, read by callbacks, metrics.jsonl, TensorBoard and the run's result.

Tests: tests/training/test_loop.py, test_progress_bar.py.
"""

from dataclasses import dataclass, field
from typing import Any

from nano_llama.training.evaluation import Evaluation
from nano_llama.training.metrics import Row


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast steps were over some stretch of training."""

    tokens_per_second: float  # evaluations and checkpoints left out
    mfu: float | None  # model FLOPs utilization, 0 to 1; None: unknown
    data_stall: float  # fraction of the time, 0 to 1, that steps waited for data


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """What is known after a step."""

    step: int
    progress: float  # 0 to 1
    tokens: int  # seen so far
    train_loss: float  # nats per token, mean since the last line of metrics.jsonl
    train_bits_per_byte: float
    lr: float
    grad_norm: float  # before clipping
    session: Speed  # since this process began to train
    recent: Speed  # since the last line of metrics.jsonl
    checkpoint_pause_s: float  # seconds that training paused for checkpoints so far
    peak_memory: int  # bytes
    elapsed_s: float  # of all sessions together
    seconds_left: float  # until the run is over
    deterministic: bool = True  # whether the same run gives the same bits again
    evaluation: Evaluation | None = None  # if one was made after this step
    model_step: int | None = None  # of the last step: whose weights are the run's model, if not this step's
    processes: dict[str, Any] = field(default_factory=dict)  # of a run over many: what metrics.py lists

    def row(self) -> Row:
        """As a line of metrics.jsonl."""
        row: Row = {
            "step": self.step,
            "tokens": self.tokens,
            "train_loss": self.train_loss,
            "train_bits_per_byte": self.train_bits_per_byte,
            "lr": self.lr,
            "grad_norm": self.grad_norm,
            "tokens_per_second": round(self.recent.tokens_per_second, 1),
            "mfu": self.recent.mfu,
            "data_stall": round(self.recent.data_stall, 4),
            "checkpoint_pause_s": round(self.checkpoint_pause_s, 3),
            "peak_memory_bytes": self.peak_memory,
            "deterministic": self.deterministic,
            "elapsed_s": round(self.elapsed_s, 3),
            "seconds_left": round(self.seconds_left, 1),
        }
        if self.evaluation:
            row |= {"val_loss": self.evaluation.loss, "val_bits_per_byte": self.evaluation.bits_per_byte}
            if self.evaluation.partial:
                row |= {"val_partial": True}
            if self.evaluation.early:
                row |= {"val_early": True}
            if self.evaluation.accuracy:
                row |= {"val_accuracy": {name: round(share, 4) for name, share in self.evaluation.accuracy.items()}}
        if self.model_step is not None:
            row |= {"model_step": self.model_step}
        return row | self.processes
