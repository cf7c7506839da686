"""The clock of a run: the one place that knows how far it is, how fast, what is due, and whether there is time for it.

It is composed of a budget (budget.py: progress by steps or by the clock), meters and the plan of evaluations (pace.py),
and the reserve for the run's end (end_reserve.py); the loop asks only `RunClock`.
Tests: tests/training/test_clock.py, test_loop_by_the_clock.py.
"""

import os
import time

from nano_llama.core.machine import process_age
from nano_llama.training.budget import Budget, Clock
from nano_llama.training.end_reserve import EndReserve, Saver
from nano_llama.training.pace import EvaluationPlan, Meter
from nano_llama.training.ranks import OneProcess, Ranks, of_first
from nano_llama.training.settings import TrainSettings

MAX_SLOWDOWN = 10.0


def process_start() -> float:
    """When this process began, on the scale of time.monotonic() (seconds).

    Linux tells it exactly; elsewhere the CPU time used so far is the best lower bound of the age.
    """
    now, age = time.monotonic(), process_age(os.getpid())
    return now - max(time.process_time() if age is None else age, 0.0)


def slowdown(wall_seconds: float) -> float:
    """How much longer things take than on an idle machine: wall time over this process's CPU time, at least 1.

    A process that waits for its turn on a busy machine has used less CPU time than has passed.
    """
    used = os.times()
    return min(max(wall_seconds / max(used.user + used.system + used.children_user, 1e-3), 1.0), MAX_SLOWDOWN)


class RunClock:
    """The time of one run.

    start: when the process began, on the scale of `clock`. past_progress, past_seconds: of the sessions that a resumed
    run continues. val_tokens: in the validation split; 0: nothing is evaluated. saver: what writes the checkpoints, of
    `checkpoint_bytes` each. ranks: of the run, who all go by the first one's time.
    """

    def __init__(
        self, settings: TrainSettings, saver: Saver, *, checkpoint_bytes: int = 0, val_tokens: int = 0,
        start: float | None = None, past_progress: float = 0.0, past_seconds: float = 0.0,
        clock: Clock = time.monotonic, ranks: Ranks | None = None,
    ):  # fmt: skip
        self.now, self.start = clock, clock() if start is None else start
        self.ranks = ranks or OneProcess()
        self.past_progress, self.past_seconds = past_progress, past_seconds
        self.budget = Budget(
            max_steps=settings.max_steps, max_minutes=settings.max_minutes, start=self.start, past=past_progress,
            clock=clock,
        )  # fmt: skip
        self.session, self.recent = Meter(), Meter()  # in this process, and since the last line of metrics.jsonl
        self.evaluations = EvaluationPlan(settings.evaluations, past_progress)
        self.end = EndReserve(
            self.budget, self.session, self.evaluations, val_tokens, saver, checkpoint_bytes,
            slowdown=lambda: slowdown(clock() - self.start),
        )  # fmt: skip
        self.seconds_between_checkpoints = 60.0 * settings.checkpoint_minutes
        self.checkpointed = clock()

    # -- how far ----------------------------------------------------------------------------------------------------

    def progress(self, step: int) -> float:
        """How far the run is after `step` updates, 0 to 1. At 1 it is over."""
        return self._agreed(self.budget.progress(step))

    def midway(self, step: int) -> float:
        """Progress in the middle of the next step: what its learning rate is computed from."""
        return self._agreed(self.budget.midway(step))

    def elapsed(self) -> float:
        """Seconds that the run has taken, all sessions together."""
        return self.past_seconds + self.now() - self.start

    def seconds_left(self, step: int) -> float:
        return self.budget.seconds_left(step, self.session.seconds_per_step)

    def until_deadline(self) -> float | None:
        """Seconds; None for a run by steps."""
        return None if self.budget.deadline is None else self.budget.deadline - self.now()

    def reserve_afterwards(self, seconds: float) -> None:
        """What comes after the run, before the deadline, takes so long: training leaves that time to it."""
        self.end.afterwards = seconds

    # -- steps ------------------------------------------------------------------------------------------------------

    def expect_step(self, seconds: float) -> None:
        """About how long the first step takes."""
        self.budget.guess_step(seconds)

    @property
    def fastest(self) -> float:
        """Tokens/s of the fastest step in this process; 0 before the first."""
        return self.session.fastest

    @property
    def by_the_clock(self) -> bool:
        """Whether the run ends by a deadline instead of a number of steps."""
        return self.budget.deadline is not None

    def start_training(self) -> None:
        """The first step begins now."""
        self.checkpointed = self.now()
        self.budget.start_training()

    def count_step(self, tokens: int, seconds: float, waited: float) -> None:
        """A step took so long, and of that waited so long for its data."""
        for meter in (self.session, self.recent):
            meter.add(tokens, seconds, waited)
        self.budget.count_step(seconds)
        self.end.reserve()

    def start_line(self) -> None:
        """A line of metrics.jsonl was written: `recent` begins again."""
        self.recent = Meter()

    # -- evaluations and checkpoints --------------------------------------------------------------------------------

    def evaluation_due(self, step: int, over: bool) -> bool:
        """Whether one is due; asked again at the same progress, no."""
        return self.evaluations.due(self.progress(step), over)

    def time_for_evaluation(self, over: bool) -> float:
        """Seconds that an evaluation may take; 0: it is not worth a try."""
        return self._agreed(self.end.time_for_evaluation(over))

    def expected_evaluation(self) -> float:
        """Seconds that the next evaluation takes, as far as is known."""
        return self.end.expected_evaluation()

    def count_evaluation(self, seconds: float, whole: float) -> None:
        """One took so long. If it was given up, the whole would have taken `whole` times as long."""
        self.end.count_evaluation(seconds, whole)
        self.end.reserve()

    def checkpoint_due(self) -> bool:
        if self.budget.deadline is not None and self.session.steps == 1:
            return True  # to learn how long saving takes
        return bool(of_first(self.ranks, self.now() - self.checkpointed >= self.seconds_between_checkpoints))

    def count_checkpoint(self) -> None:
        self.checkpointed = self.now()

    def _agreed(self, value: float) -> float:
        """The first rank's; of a run by steps all ranks have the same."""
        return of_first(self.ranks, value) if self.by_the_clock else value
