"""Other programs on the machine: the user hears of them once, where they take much of what training could have.

Tests: tests/training/test_neighbours.py.
"""

import os
import time

from nano_llama.core.machine import CpuUse
from nano_llama.training.backend import Notice

SECONDS = 5.0  # of training before the first look
BUSY = 0.4  # of the machine, taken by others: worth a word


class Neighbours:
    """Looks once, when training has gone on for SECONDS."""

    def __init__(self, notice: Notice):
        self.notice, self.use = notice, CpuUse()
        self.due = time.monotonic() + SECONDS

    def look(self) -> None:
        """Called after each step."""
        if time.monotonic() < self.due:
            return
        self.due = float("inf")
        cores, others = os.cpu_count() or 1, self.use.by_others()
        if others is not None and others > BUSY * cores:
            self.notice(
                f"Other programs keep {others:.1f} of {cores} cores busy: training is slower than it would be alone."
            )
