"""Ctrl-C during a run: the first asks the loop to stop after the step it is in, the second stops at once.

SIGTERM, which batch systems send before they kill, asks alike. Not here: what is saved then (loop.py).
Tests: tests/training/test_interrupt.py.
"""

import signal
import threading
from types import FrameType
from typing import Any


class CtrlC:
    """While entered, `pressed` tells whether Ctrl-C or SIGTERM came once; the second one acts as it does elsewhere.

    Signals reach the main thread only: in another thread nothing is installed and `pressed` stays False.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # what came
        self._before: dict[int, Any] = {}

    @property
    def pressed(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> "CtrlC":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._press) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        self._give_back()

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._give_back()

    def _give_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
