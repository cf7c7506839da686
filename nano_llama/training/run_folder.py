"""The folder of a run: which files it holds, and who may write there.

    config.json  generation_config.json  tokenizer.json ...     the model's shape and tokenizer, from the first step on
    model.safetensors      the weights, when the run has ended or was stopped: the folder is then a Hugging Face model
    train.json             every setting: `nano-llama train --config train.json` runs it again
    metrics.jsonl          one line every few steps (metrics.py)
    loss.png               its picture (plots.py)
    bad_batches/           those of loss spikes and of losses that are no number (watchdog.py)
    samples.md             what the model wrote at each evaluation (samples.py)
    tensorboard/           the same figures for TensorBoard, where wished for (tensorboard.py)
    run.lock               held by the process that trains here
    checkpoints/step-00000500/     such a Hugging Face model, and what else is needed to go on (checkpoint.py)

Not here: what is in these files. Tests: tests/training/test_run_folder.py.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core import files
from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.data.lock import exclusive, is_held
from nano_llama.formats import save_hf
from nano_llama.training.settings import TrainSettings

# What a run that goes on may change; anything else would make it another run.
MAY_CHANGE = (
    "max_steps", "max_minutes", "log_every", "evaluations", "checkpoint_minutes", "keep_checkpoints",
    "device", "num_threads", "data_workers", "stop_loss",
    "on_nan", "on_spike", "samples", "sample_tokens", "sample_prompt",
    "tensorboard",
)  # fmt: skip


class RunFolder:
    """The paths of one run."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings = self.path / "train.json"
        self.metrics = self.path / "metrics.jsonl"
        self.bad_batches = self.path / "bad_batches"
        self.plot = self.path / "loss.png"
        self.samples = self.path / "samples.md"
        self.tensorboard = self.path / "tensorboard"
        self.lock = self.path / "run.lock"
        self.checkpoints = self.path / "checkpoints"

    def check_new(self) -> None:
        """Raises UserError when something lies there already: a run never overwrites another."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            return
        if self.lock.exists() and not self.settings.exists():
            return  # a run was killed as it began: the lock says that what lies here is ours
        if self.settings.exists():
            raise UserError(
                f"{self.path} holds a run already.",
                hint=f"Go on with it:  nano-llama train --out {self.path} --resume    or choose another --out.",
            )
        if self.path.exists():
            raise UserError(f"{self.path} exists already and is no run.", hint="Choose another --out.")

    @contextmanager
    def held(self) -> Iterator[None]:
        """While entered, no other process can train here. Raises EnvironmentFault where one does."""
        with exclusive(self.lock, wait_s=3.0, what="training"):
            yield
            self.lock.unlink(missing_ok=True)

    def check_free(self) -> None:
        """Raises EnvironmentFault where nothing can be written here, UserError where another process trains here."""
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if there.is_dir() and not os.access(there, os.W_OK | os.X_OK):
            raise EnvironmentFault(
                f"Cannot write {self.path}: you have no permission to write in {there}.", hint="Choose another --out."
            )
        if self.is_held():
            raise UserError(
                f"Another process is training in {self.path}.",
                hint="Wait for its end, or stop it (Ctrl-C keeps what it learned), or choose another --out.",
            )

    def is_held(self) -> bool:
        """Whether a process trains here at this moment."""
        return is_held(self.lock)

    def create(self, settings: TrainSettings, config: LlamaConfig, tokenizer: Any) -> None:
        """Write what is known before the first step; train.json last, as the sign that all is there."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"Cannot make {self.path}: {error.strerror}.", hint="Choose another --out."
            ) from error
        files.write_json(self.path / "config.json", config.to_hf_dict())
        tokenizer.save_pretrained(self.path)
        files.write_json(self.settings, settings.to_json())

    def load_settings(self) -> TrainSettings:
        """The settings the run was started with. Raises UserError where there is no run."""
        if not self.settings.exists():
            raise UserError(
                f"{self.path} holds no run to resume: there is no train.json in it.",
                hint="Start one by leaving --resume out.",
            )
        return TrainSettings.load(self.settings)

    def resumed_settings(self, changes: Mapping[str, Any]) -> TrainSettings:
        """The run's settings with `changes`. Raises UserError for a change that would make it another run."""
        saved = self.load_settings()
        wanted = saved.replace(**changes)
        for name, value in saved.to_json().items():
            if name not in MAY_CHANGE and getattr(wanted, name) != value:
                raise UserError(
                    f"{self.path} was started with {name} = {value!r}; it cannot go on with {getattr(wanted, name)!r}.",
                    hint=f"Leave {name} out, or start a new run (--init-from {self.path} begins with its weights).",
                )
        return wanted

    def save_model(self, config: LlamaConfig, weights: Mapping[str, np.ndarray], tokenizer: Any) -> None:
        """Make the run's folder itself a Hugging Face model."""
        put_model(self.path, config, weights, tokenizer)


def put_model(folder: Path, config: LlamaConfig, weights: Mapping[str, np.ndarray], tokenizer: Any) -> None:
    """Write a Hugging Face model into a folder that exists already, each file whole or not at all, the weights last."""
    beside = folder / ".model.tmp"
    shutil.rmtree(beside, ignore_errors=True)  # left by a kill
    save_hf(beside, config, weights, tokenizer)
    # safetensors files and, after them, their index come last: names sort so
    for file in sorted(beside.iterdir(), key=lambda file: (".safetensors" in file.name, file.name)):
        file.replace(folder / file.name)
    beside.rmdir()
