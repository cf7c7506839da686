"""Bad batches: what happens when the watchdog finds a fault, by the settings on_nan and on_spike.

The batches are saved in the run for inspection. Then the update is made all the same, or is skipped, or the run
stops.
Tests: tests/training/test_watchdog.py.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core import files
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import Batch
from nano_llama.training.backend import Notice, StepResult
from nano_llama.training.checkpoints import Checkpoints
from nano_llama.training.outcome import diverged
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.settings import TrainSettings
from nano_llama.training.state import RunState

MOST_SAVED = 10  # batches in a run's folder


class BadBatches:
    """Reports the faults of one run, and decides whether it continues."""

    def __init__(
        self, settings: TrainSettings, folder: RunFolder, tokenizer: Any, checkpoints: Checkpoints, notice: Notice
    ):
        self.settings, self.folder, self.tokenizer = settings, folder, tokenizer
        self.checkpoints, self.notice = checkpoints, notice

    def tolerate(self, fault: str, result: StepResult, batches: Sequence[Batch], state: RunState, lr: float) -> bool:
        """Save the batches and report the fault -> whether to update with them all the same.

        fault: "nan" or "spike", as the watchdog names it. Raises TrainingDiverged if the run must stop.
        """
        step, watchdog = state.step + 1, state.watchdog
        policy = self.settings.on_nan if fault == "nan" else self.settings.on_spike
        texts = [self.tokenizer.decode(row.tolist()) for tokens, *_ in batches for row in tokens]
        path = save_batches(self.folder.bad_batches, step, fault, result, batches, texts)
        where = f" Its batch is in {path}." if path else ""
        if policy == "stop" or (policy == "skip" and watchdog.gives_up):
            self.checkpoints.wait()
            raise diverged(self.settings, self.folder.path, step, fault, result, lr, where)
        expected = "" if fault == "nan" else f", far above {watchdog.mean:.2f}"
        skipped = " (skipped)" if policy == "skip" else ""
        self.notice(
            f"Step {step:,}: loss {result.loss:.4g}, gradient {result.grad_norm:.3g}{expected}{skipped}.{where}"
        )
        return policy == "report"


def save_batches(
    folder: Path, step: int, what: str, result: StepResult, batches: Sequence[Batch], texts: Sequence[str]
) -> Path | None:
    """Write a step's batches as step-<step>.npz (tokens and targets, (accumulate,B,T)), and beside it .json with its
    figures and texts. Only the first few of a run are saved; None: there are enough."""
    folder.mkdir(parents=True, exist_ok=True)
    if len(list(folder.glob("*.npz"))) >= MOST_SAVED:
        return None
    path = folder / f"step-{step:08d}.npz"
    with files.atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, tokens=_stacked(batches, 0, 0), targets=_stacked(batches, 1, IGNORE_INDEX))
    figures = {
        "step": step,
        "what": what,
        "loss": str(result.loss),
        "norm": str(result.grad_norm),
        "texts": list(texts),
    }
    files.write_text(path.with_suffix(".json"), json.dumps(figures, indent=1, ensure_ascii=False))
    return path


def _stacked(batches: Sequence[Batch], which: int, padding: int) -> np.ndarray:
    """One array of each batch as (accumulate,B,T); batches of examples differ in T."""
    arrays = [batch[which] for batch in batches]
    B, T = (max(sizes) for sizes in zip(*(array.shape for array in arrays), strict=True))
    padded = np.full((len(arrays), B, T), padding, np.int64)
    for place, array in enumerate(arrays):
        padded[place, : array.shape[0], : array.shape[1]] = array
    return padded


def first_loss_notice(loss: float, vocab_size: int) -> str:
    """A warning if a fresh model's first loss is not that of a uniform guess, ln V; else "".

    Fresh logits are small but not zero, which costs a few tenths of a nat.
    """
    expected = math.log(vocab_size)
    if abs(loss - expected) <= 1.0:
        return ""
    return (
        f"The first loss is {loss:.2f} nats; a fresh model guesses among {vocab_size:,} tokens, ln {vocab_size:,}"
        f" = {expected:.2f}. Are the targets what they should be?"
    )
