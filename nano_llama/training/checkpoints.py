"""The checkpoints of one run: taken when they are due, and when something fails.

checkpoint.py says what a checkpoint holds, checkpoint_writer.py writes it while training goes on.
Tests: tests/training/test_loop.py.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import numpy as np

from nano_llama.training.backend import Backend
from nano_llama.training.clock import RunClock
from nano_llama.training.end_reserve import Saver
from nano_llama.training.state import RunState

# What the state of a checkpoint must have for a run to resume from it.
NEEDED = ("tokens", "progress", "elapsed_s", "data_position", "loss_sum", "loss_steps", "watchdog", "dataset")


class Writer(Saver, Protocol):
    """What writes a checkpoint: a CheckpointWriter; on ranks that write none, WrittenByFirst."""

    paused: float

    def save(
        self, step: int, weights: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]
    ) -> None: ...

    def wait(self) -> None: ...


class Checkpoints:
    """Saves `state` and `backend` as they are now. fingerprint: of the dataset, which a resumed run must have too."""

    def __init__(self, writer: Writer, backend: Backend, state: RunState, clock: RunClock, fingerprint: str):
        self.writer, self.backend, self.state, self.clock = writer, backend, state, clock
        self.fingerprint = fingerprint
        self.first_step = state.step

    def save(self) -> None:
        """Take a checkpoint now; it is written while training goes on. Raises what went wrong with the last one."""
        state = {
            **self.state.to_json(),
            "progress": self.clock.progress(self.state.step),
            "elapsed_s": self.clock.elapsed(),
            "dataset": self.fingerprint,
        }
        self.writer.save(self.state.step, self.backend.weights(), self.backend.training_tensors(), state)
        self.clock.count_checkpoint()

    @contextmanager
    def checkpoint_on_error(self) -> Iterator[None]:
        """Around what may fail while the run's state is whole: save it, then let the error through.

        Not at the run's end: of that, a checkpoint would say that nothing is left to do. Nor with several ranks: all
        take part in a checkpoint, and the others do not know of the error.
        """
        try:
            yield
        except Exception:
            alone = self.clock.ranks.size == 1
            if alone and self.state.step > self.first_step and self.clock.progress(self.state.step) < 1.0:
                with suppress(Exception):  # the user is told the first error
                    self.save()
            raise

    def wait(self) -> None:
        """Return when everything is on disk. Raises what went wrong."""
        self.writer.wait()

    @property
    def pause(self) -> float:
        """Seconds that training has paused for checkpoints."""
        return self.writer.paused
