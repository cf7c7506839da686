"""The folder of a run: which files it holds, and who may write there.

    config.json  tokenizer.json ...     the model's shape and tokenizer, from the start
    model.safetensors      the weights, once the run has ended or was stopped: then the folder is a Hugging Face model.
                           They are those of the last step, or where the validation loss had risen again of its lowest
                           (final_model.py); of a run that trains an adapter, PEFT's two files instead (model_files.py);
                           of one on pictures, where the LLaMA has factors, with these merged (picture_files.py)
    train.json             every setting: `nano-llama train --config train.json` runs it again
    metrics.jsonl          one line every few steps (metrics.py)
    loss.png               its picture (plots.py)
    bad_batches/           batches whose loss spiked, or was NaN or infinite (bad_batches.py)
    samples.md             what the model generated at each evaluation (samples.py)
    samples.png            of a run on pictures: those that it was asked about (picture_answers.py)
    tensorboard/           the same metrics for TensorBoard, if asked for (tensorboard.py)
    before.json report.md  of fine-tuning: what the model could do before, and what has changed (finetune/)
    run.lock               held by the process that trains here
    checkpoints/step-00000500/     another such model, and what resuming needs (checkpoint.py)

Tests: tests/training/test_run_folder.py.
"""

import os
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from nano_llama.core import files
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.data.lock import exclusive, is_held
from nano_llama.training.model_files import ModelFiles
from nano_llama.training.saved_settings import load_settings
from nano_llama.training.settings import TrainSettings

# What a resumed run may change; anything else would make it another run.
MAY_CHANGE = (
    "max_steps", "max_minutes", "epochs", "log_every", "evaluations", "checkpoint_minutes", "keep_checkpoints",
    "device", "deterministic", "num_threads", "data_workers", "mesh", "execution", "mesh_timeout",
    "stop_loss",
    "on_nan", "on_spike", "samples", "sample_tokens", "sample_temperature", "sample_prompt",
    "tensorboard", "held_out",
)  # fmt: skip


class RunFolder:
    """The paths of one run. command: of the command line, which resumes it."""

    def __init__(self, path: str | Path, command: str = "train"):
        self.path = Path(path)
        self.resume = f"nano-llama {command} --out {shlex.quote(str(path))} --resume"
        self.settings = self.path / "train.json"
        self.metrics = self.path / "metrics.jsonl"
        self.bad_batches = self.path / "bad_batches"
        self.plot = self.path / "loss.png"
        self.samples = self.path / "samples.md"
        self.sample_pictures = self.path / "samples.png"
        self.tensorboard = self.path / "tensorboard"
        self.lock = self.path / "run.lock"
        self.checkpoints = self.path / "checkpoints"

    def check_new(self) -> None:
        """Raises UserError if the folder is in use: a run never overwrites another."""
        if self.path.is_dir() and not any(self.path.iterdir()):
            return
        if self.lock.exists() and not self.settings.exists():
            return  # a run was killed as it started: by the lock, what is here is ours
        if self.settings.exists():
            raise UserError(
                f"{self.path} already holds a run.",
                hint=f"Resume it:  {self.resume}    or choose another --out.",
            )
        if self.path.exists():
            raise UserError(f"{self.path} already exists and is not a run.", hint="Choose another --out.")

    def begun_within(self, seconds: float) -> bool:
        """Whether the run here was begun, or gone on with, in the last seconds, by the clock of this file system."""
        if not self.settings.exists():
            return False
        with suppress(OSError), TemporaryFile(dir=self.path) as now:
            return os.fstat(now.fileno()).st_mtime - self.settings.stat().st_mtime < seconds
        return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """While entered, no other process can train here. Raises EnvironmentFault if one does."""
        with exclusive(self.lock, wait_s=3.0, what="training"):
            yield
            self.lock.unlink(missing_ok=True)

    def check_free(self) -> None:
        """Raises EnvironmentFault or UserError if nothing can be written here, or another process is training here."""
        files.check_folder(self.path)
        if self.is_held():
            raise UserError(
                f"Another process is training in {self.path}.",
                hint="Wait until it ends, or stop it (Ctrl-C saves its progress), or choose another --out.",
            )

    def is_held(self) -> bool:
        """Whether a process is training here now."""
        return is_held(self.lock)

    def create(self, settings: TrainSettings, model: ModelFiles) -> None:
        """Write what is known before the first step; train.json last, as the sign that everything is there."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"Cannot create {self.path}: {error.strerror}.", hint="Choose another --out."
            ) from error
        model.begin(self.path)
        files.write_json(self.settings, settings.to_json())

    def load_settings(self) -> TrainSettings:
        """The settings that the run was started with. Raises UserError if there is no run."""
        if not self.settings.exists():
            raise UserError(
                f"{self.path} has no run to resume: there is no train.json in it.",
                hint="Leave --resume out to start one.",
            )
        return load_settings(self.settings)

    def resumed_settings(self, changes: Mapping[str, Any]) -> TrainSettings:
        """The run's settings with `changes`. Raises UserError for a change that would make it another run."""
        saved = self.load_settings()
        wanted = saved.replace(**changes)
        for name, value in saved.to_json().items():
            if name not in MAY_CHANGE and getattr(wanted, name) != value:
                weights = "" if saved.from_examples else f" (--init-from {self.path} starts from its weights)"
                raise UserError(
                    f"{self.path} was started with {name} = {value!r}, not {getattr(wanted, name)!r}.",
                    hint=f"Leave {name} out, or start a new run{weights}.",
                )
        return wanted
