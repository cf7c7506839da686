"""The processes that train one model together, as the loop sees them: they decide alike, and the first of them writes.

Each rank runs the same loop on the same global batches; what a rank computes of them, and how gradients are summed, is
the backend's. What differs from rank to rank is the time, and where Ctrl-C arrives. So every decision that depends on
either is taken from values that are gathered: the first rank's time, and a signal that any rank has received.
Tests: tests/training/test_ranks.py.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nano_llama.formats.mapping import TensorMapping
from nano_llama.training.model_files import ModelFiles


class Ranks(Protocol):
    """All ranks call the same methods in the same order: each waits for the others."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def first_of_machine(self) -> bool:
        """Whether this is the one that does what each machine does once."""
        ...

    def gathered(self, value: float) -> list[float]:
        """This value of every rank, by rank."""
        ...


class OneProcess:
    """The usual case: nobody to wait for."""

    rank, size, first_of_machine = 0, 1, True

    def gathered(self, value: float) -> list[float]:
        return [value]


def of_first(ranks: Ranks, value: float) -> float:
    """The first rank's value, on every rank."""
    return ranks.gathered(value)[0]


class GatheredTensors(TensorMapping):
    """Tensors of which every rank has a part. They are gathered one by one, as the first rank reads them.

    It must close them when it is done. Meanwhile the others `serve`, and do nothing else.
    """

    def serve(self) -> None:
        """Give this rank's part of what the first one asks for, until it closes."""
        raise NotImplementedError


def serve(tensors: Mapping[str, np.ndarray]) -> None:
    if isinstance(tensors, GatheredTensors):
        tensors.serve()


class WrittenByFirst:
    """Stands on the other ranks for what writes a run's checkpoints, or its model, which is read on all."""

    seconds: float | None = None
    paused = 0.0
    busy = False

    def __init__(self, model: ModelFiles | None = None):
        self.model = model

    def begin(self, folder: Path) -> None:
        pass

    def put(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        serve(weights)

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        assert self.model is not None, "it stands for what writes the model"
        return self.model.open(folder)

    def save(
        self, step: int, weights: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]
    ) -> None:
        serve(weights)
        serve(tensors)

    def wait(self) -> None:
        pass
