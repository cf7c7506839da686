"""Checkpoints written in the background: a copy in memory is taken at once, and a thread writes it to disk.

Training pauses for the copy only. One copy exists at a time: the next save waits until the last one is written. A
failure to write is raised at the next save, or at the end. What other processes have a part in is not copied, as no
process may be able to hold it: training pauses until it is in a file, and the thread does what then is left (checksums,
the name). checkpoint.py says what a checkpoint holds, checkpoints.py when one is taken.
Tests: tests/training/test_checkpoint_writer.py.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from nano_llama.core.errors import EnvironmentFault
from nano_llama.training.checkpoint import prune_checkpoints, save_in_parts
from nano_llama.training.model_files import ModelFiles
from nano_llama.training.ranks import GatheredTensors
from nano_llama.training.run_folder import RunFolder


class CheckpointWriter:
    """Writes the checkpoints of one run, and keeps the newest `keep` and the best. model: how its weights are saved."""

    def __init__(self, run: RunFolder, model: ModelFiles, keep: int):
        self.run, self.model, self.keep = run, model, keep
        self.paused = 0.0  # seconds that training has paused for checkpoints
        self.seconds: float | None = None  # that the last one took, copying and writing together
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def save(
        self, step: int, weights: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]
    ) -> None:
        """Start to write a checkpoint. Raises what went wrong with the last one."""
        begin = time.monotonic()
        self.wait()
        gathered = isinstance(weights, GatheredTensors)
        if not gathered:
            weights, tensors = copied(weights), copied(tensors)
        saving = save_in_parts(self.run.checkpoints, step, self.model, weights, tensors, state)
        if gathered:
            with self._telling_how_to_resume():
                next(saving, None)

        def write() -> None:
            try:
                with self._telling_how_to_resume():
                    for _ in saving:
                        pass
                    prune_checkpoints(self.run.checkpoints, self.keep)
                self.seconds = time.monotonic() - begin
            except BaseException as error:  # to be raised in the training's thread
                self._failure = error

        self._thread = threading.Thread(target=write, name="checkpoint", daemon=True)
        self._thread.start()
        self.paused += time.monotonic() - begin

    @contextmanager
    def _telling_how_to_resume(self) -> Iterator[None]:
        try:
            yield
        except EnvironmentFault as error:
            resume = f"Then resume from the last checkpoint:  {self.run.resume}"
            raise EnvironmentFault(error.message, hint=f"{error.hint}\n{resume}") from error

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Return when everything is on disk. Raises what went wrong."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def copied(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Copies that later updates do not change."""
    return {name: np.array(array) for name, array in arrays.items()}
