"""How far a run is, between 0 and 1: by steps, or by the clock of the whole process.

By the clock, the deadline counts from the process's start, and the time that the run's end needs (the last evaluation,
saving, exiting) is reserved, so that training stops early enough. The learning rate follows `progress`, so the schedule
fits itself to the time that is left, also on a slow or busy machine.
Tests: tests/training/test_budget.py.
"""

import math
import statistics
import time
from collections import deque
from collections.abc import Callable

Clock = Callable[[], float]  # tells the time in seconds, like time.monotonic

RECENT = 15  # steps of which `typical_step` is the median
STEP_MARGIN, FIRST_MARGIN = 1.2, 0.3  # how much longer than the slowest recent step the next may take


class Budget:
    """Progress of one run. `start` is when its process began; `past` the progress of the run that is resumed.

    By steps, progress is step / max_steps. By the clock, it goes from `past` when the first step begins to 1 when only
    the reserve is left before the deadline.
    """

    def __init__(
        self,
        *,
        max_steps: int | None = None,
        max_minutes: float | None = None,
        start: float = 0.0,
        past: float = 0.0,
        clock: Clock = time.monotonic,
    ):
        assert (max_steps is None) != (max_minutes is None), "a run ends by steps or by the clock"
        self.clock = clock
        self.max_steps = max_steps
        self.seconds = None if max_minutes is None else 60.0 * max_minutes
        self.deadline = None if self.seconds is None else start + self.seconds
        self.past = past
        self.reserve = 0.0  # seconds reserved for the end
        self.begin = clock()
        self.step_seconds = 0.0  # of the slowest recent step, at first a guess: the last one must fit too
        self.recent: deque[float] = deque(maxlen=RECENT)  # seconds of each
        self.steps_seen = 0

    def start_training(self) -> None:
        """The first step begins now: the schedule leaves out what came before (reading data, building the model)."""
        self.begin = self.clock()

    @property
    def span(self) -> float:
        """Seconds from the first step to the deadline; infinite for a run by steps."""
        return math.inf if self.deadline is None else self.deadline - self.begin

    def keep(self, seconds: float) -> None:
        """Reserve this many seconds for the end."""
        self.reserve = seconds

    def count_step(self, seconds: float) -> None:
        """Learn how long a step takes; a slow one is forgotten slowly, but for the first, which also warms up."""
        if self.steps_seen < 2:
            self.recent.clear()
            self.step_seconds = seconds
        self.step_seconds = max(seconds, 0.9 * self.step_seconds)
        self.recent.append(seconds)
        self.steps_seen += 1

    @property
    def typical_step(self) -> float:
        """Seconds that a step takes now: the median of the recent ones; before the first, a guess."""
        return statistics.median(self.recent) if self.recent else self.step_seconds

    def guess_step(self, seconds: float) -> None:
        """About how long the first step takes: for the schedule. No run is refused by a guess."""
        self.step_seconds = seconds

    def progress(self, step: int) -> float:
        """How far the run is after `step` updates, 0 to 1. At 1 it is over."""
        if self.max_steps is not None:
            return min(step / self.max_steps, 1.0)
        now, end = self.clock(), self._end()
        if now + self._longest_step() >= end:
            return 1.0
        return self.past + (1.0 - self.past) * (now - self.begin) / (end - self.begin)

    def midway(self, step: int) -> float:
        """Progress in the middle of the step that comes after `step` updates: what its learning rate is taken from."""
        if self.max_steps is not None:
            return (step + 0.5) / self.max_steps
        share = 0.5 * self.step_seconds / max(self._end() - self.begin, 1e-9)
        return min(self.progress(step) + (1.0 - self.past) * share, 1.0)

    def seconds_left(self, step: int, seconds_per_step: float) -> float:
        """Expected seconds until the run is over, the end's reserve included."""
        if self.max_steps is not None:
            return (self.max_steps - step) * seconds_per_step
        assert self.deadline is not None
        return max(self.deadline - self.clock(), 0.0)

    def _longest_step(self) -> float:
        """An upper estimate of the next step's time: the fewer steps were seen, the larger the margin."""
        if not self.steps_seen:
            return 0.0
        return (STEP_MARGIN + FIRST_MARGIN / self.steps_seen) * self.step_seconds

    def _end(self) -> float:
        assert self.deadline is not None, "only a run by the clock has an end in time"
        return self.deadline - self.reserve
