"""Ctrl-C during a run: the first asks the loop to stop after the step it is in, the second stops at once.

Not here: what is saved then (loop.py). Tests: tests/core/training/test_interrupt.py.
"""

import signal
import threading
from types import FrameType
from typing import Any


class CtrlC:
    """While entered, `pressed` tells whether Ctrl-C was pressed once; the second time it is KeyboardInterrupt again.

    Signals reach the main thread only: in another thread nothing is installed and `pressed` stays False.
    """

    def __init__(self) -> None:
        self.pressed = False
        self._before: Any = None

    def __enter__(self) -> "CtrlC":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._press)
        return self

    def __exit__(self, *exception: object) -> None:
        self._give_back()

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.pressed = True
        self._give_back()

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None
