"""A run at a glance, read from its folder during the run or after: what it is, how far it came, how well it did.

Tests: tests/training/test_run_summary.py.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nano_llama.core import files
from nano_llama.core.errors import NanoLlamaError, UserError
from nano_llama.core.vision.config import ModelConfig, language_config
from nano_llama.formats import read_config
from nano_llama.formats.vision_folder import read_vision_language_config
from nano_llama.training.checkpoint import STATE, list_checkpoints
from nano_llama.training.metrics import Row, best_of, read_metrics
from nano_llama.training.outcome import reached_goal
from nano_llama.training.plots import made_how, title_of
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.saved_settings import load_settings
from nano_llama.training.settings import TrainSettings

MAX_DEPTH = 3  # levels of folders that are searched for runs


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """One run. A figure is None if the run has none yet. `best_step`: where its validation loss was lowest."""

    name: str
    path: Path
    state: str  # running, finished, reached its loss, or stopped (by Ctrl-C, a kill or a diverging loss)
    engine: str
    data: str
    vocab_size: int
    parameters: int
    optimizer: str
    lr: float
    batch_tokens: int
    step: int
    tokens: int
    train_loss: float | None  # nats per token, on the last line
    val_loss: float | None  # the best, nats per token
    val_bits_per_byte: float | None  # at that step
    best_step: int | None
    model_step: int | None  # whose weights are the run's model, where the loss rose after `best_step`; else the last's
    tokens_per_second: float | None  # median of the lines
    elapsed_s: float | None
    title: str  # of its picture
    made_how: list[str]  # the parts of its caption
    settings: TrainSettings

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path)}


def find_runs(folder: Path) -> list[Path]:
    """The runs in a folder, by name, or the folder itself if it is a run. Raises UserError if there are none."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.", hint="Give the folder of a run, or one that holds runs.")
    if (folder / "train.json").is_file():
        return [folder]
    levels = ("*/" * depth + "train.json" for depth in range(1, MAX_DEPTH + 1))
    found = sorted(file.parent for pattern in levels for file in folder.glob(pattern))
    if not found:
        raise UserError(f"{folder}: no runs in it (no train.json).", hint="Start one:  nano-llama train --help")
    return found


def summarize(path: Path, name: str | None = None) -> tuple[RunSummary, list[Row]]:
    """A run's summary, and its metrics' rows. Raises UserError or FormatError, naming the file that is damaged."""
    folder = RunFolder(path)
    settings = load_settings(folder.settings)
    shape: ModelConfig
    if settings.from_pictures:
        shape = read_vision_language_config(path)
    else:
        shape = read_config(path if settings.lora is None else settings.init_from or "")
    rows = read_metrics(folder.metrics) if folder.metrics.is_file() else []
    last: Row = rows[-1] if rows else {}
    best = best_of(rows)
    speeds = [row["tokens_per_second"] for row in rows if "tokens_per_second" in row]
    summary = RunSummary(
        name=name or path.name, path=path, state=state_of(folder, settings), engine=settings.engine, data=settings.data,
        vocab_size=language_config(shape).vocab_size, parameters=shape.num_parameters,
        optimizer=settings.optimizer, lr=settings.lr, batch_tokens=settings.tokens_per_step,
        step=last.get("step", 0), tokens=last.get("tokens", 0),
        train_loss=last.get("train_loss"), val_loss=best.get("val_loss"),
        val_bits_per_byte=best.get("val_bits_per_byte"), best_step=best.get("step"),
        model_step=last.get("model_step"),
        tokens_per_second=statistics.median(speeds) if speeds else None, elapsed_s=last.get("elapsed_s"),
        title=title_of(shape.num_parameters, settings), made_how=made_how(shape, settings), settings=settings,
    )  # fmt: skip
    return summary, rows


def alike(runs: Sequence[RunSummary]) -> list[str]:
    """How these runs were made, as far as all of them were made so: parts of a caption."""
    first, *others = runs
    return [part for part in first.made_how if all(part in other.made_how for other in others)]


def state_of(folder: RunFolder, settings: TrainSettings) -> str:
    """running: a process is training it now. finished: its newest checkpoint says that it came to its end. reached its
    loss: that checkpoint's loss is `stop_loss` or less. Else stopped: it can be resumed."""
    if folder.is_held():
        return "running"
    for checkpoint in reversed(list_checkpoints(folder.checkpoints)):
        try:
            state = files.read_json(checkpoint / STATE, "checkpoint's state")
        except NanoLlamaError:
            continue  # damaged: see the one before
        if not isinstance(state, dict):
            return "stopped"
        if state.get("progress", 0.0) >= 1.0:
            return "finished"
        return "reached its loss" if reached_goal(settings, state.get("val_loss")) else "stopped"
    return "stopped"
