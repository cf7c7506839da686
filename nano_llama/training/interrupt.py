"""Ctrl-C during a run: the first one asks the loop to stop after the current step, the second one stops at once.

SIGTERM, which batch systems send before they kill, does the same as the first Ctrl-C, however often it comes: of many
processes each gets it from the batch system and from torchrun.
Tests: tests/training/test_interrupt.py.
"""

import signal
import threading
from types import FrameType
from typing import Any


class GracefulInterrupt:
    """While entered, `pressed` tells whether Ctrl-C or SIGTERM came; a Ctrl-C after that has its usual effect.

    Signals reach the main thread only: in another thread nothing is installed and `pressed` stays False.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the one that came
        self._before: dict[int, Any] = {}

    @property
    def pressed(self) -> bool:
        return self.signal is not None

    def __enter__(self) -> "GracefulInterrupt":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._press) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore_handlers()

    def _press(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        if signal.SIGINT in self._before:
            signal.signal(signal.SIGINT, self._before.pop(signal.SIGINT))

    def _restore_handlers(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
