"""Other programs on the machine: how many threads they leave, and a word to the user where they take much.

Tests: tests/training/test_neighbours.py.
"""

import math
import os
import time

from nano_llama.core.machine import CpuUse
from nano_llama.training.backend import Notice

GLANCE = 0.5  # seconds to see what is free, before a run by the clock
SECONDS = 5.0  # of training before the first look


def free_threads(threads: int, notice: Notice) -> int:
    """How many of these threads to use, if they wait for each other often: as many as cores are free, at least half.

    A thread that shares its core with another program keeps all the others waiting: on two cores, one of PyTorch's
    threads is twice as fast as two beside one busy loop, and beside two (dev/LOG.md). Not for Volume 1, whose threads
    meet once a step and are fastest when they are all there. Takes GLANCE seconds.
    """
    if threads == 1:
        return threads
    use, cores = CpuUse(), os.cpu_count() or 1
    time.sleep(GLANCE)
    others = use.by_others() or 0.0
    chosen = min(threads, max(round(cores - others), math.ceil(threads / 2)))
    if chosen < threads:
        notice(
            f"Other programs keep {others:.1f} of {cores} cores busy: training takes {chosen} of {threads}"
            " threads (num_threads chooses)."
        )
    return chosen


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
        if said := self.use.sentence("training is slower than it would be alone."):
            self.notice(said)
