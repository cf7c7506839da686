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


class Ranks(Protocol):
    """All ranks call the same methods in the same order: each waits for the others."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def gathered(self, value: float) -> list[float]:
        """This value of every rank, by rank."""
        ...


class OneProcess:
    """The usual case: nobody to wait for."""

    rank, size = 0, 1

    def gathered(self, value: float) -> list[float]:
        return [value]


def of_first(ranks: Ranks, value: float) -> float:
    """The first rank's value, on every rank."""
    return ranks.gathered(value)[0]


class WrittenByFirst:
    """Stands on the other ranks for what writes a run's checkpoints and its model."""

    seconds: float | None = None
    paused = 0.0
    busy = False

    def begin(self, folder: Path) -> None:
        pass

    def put(self, folder: Path, weights: Mapping[str, np.ndarray]) -> None:
        pass

    def open(self, folder: Path) -> Mapping[str, np.ndarray]:
        raise AssertionError("only the first rank reads what it has written")

    def save(
        self, step: int, weights: Mapping[str, np.ndarray], tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]
    ) -> None:
        pass

    def wait(self) -> None:
        pass
