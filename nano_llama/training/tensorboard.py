"""TensorBoard: the metrics of metrics.jsonl, logged there too if the user asks for it.

With tensorboardX, which is the writer alone (90 KB); the package tensorboard is the whole web server.
Tests: tests/training/test_tensorboard.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nano_llama.core.errors import import_extra

# Metric -> its chart.
CHARTS = {
    "train_loss": "loss/train",
    "val_loss": "loss/validation",
    "train_bits_per_byte": "bits_per_byte/train",
    "val_bits_per_byte": "bits_per_byte/validation",
    "lr": "update/learning_rate",
    "grad_norm": "update/gradient_norm",
    "tokens_per_second": "speed/tokens_per_second",
    "mfu": "speed/mfu",
    "data_stall": "speed/data_stall",
    "peak_memory_bytes": "memory/peak_bytes",
}


def check_tensorboard() -> None:
    """Raises EnvironmentFault, naming the extra, if the writer is not installed."""
    import_extra("tensorboardX", "tensorboard", "Writing for TensorBoard")


class TensorBoardWriter:
    """Event files in `folder`. `keep_to`: the run resumes after that step, and later entries are dropped."""

    def __init__(self, folder: Path, keep_to: int | None = None):
        module = import_extra("tensorboardX", "tensorboard", "Writing for TensorBoard")
        self._writer = module.SummaryWriter(str(folder), purge_step=None if keep_to is None else keep_to + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """The figures of one row of metrics.jsonl, at its step."""
        for name, chart in CHARTS.items():
            if row.get(name) is not None:
                self._writer.add_scalar(chart, row[name], row["step"])

    def close(self) -> None:
        self._writer.close()
