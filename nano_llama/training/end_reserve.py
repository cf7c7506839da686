"""The reserve for the end of a run by the clock: evaluating, saving, drawing and exiting must end by the deadline.

A run by steps has no deadline: every answer is then yes. Tests: tests/training/test_loop_by_the_clock.py.
"""

import math
from collections.abc import Callable
from typing import Protocol

from nano_llama.training.budget import Budget
from nano_llama.training.pace import EvaluationPlan, Meter

# What the end of a run takes on an idle machine, generously.
EXIT_SECONDS = 1.5  # from the end of `fit` to the end of the process
PLOTTING_SECONDS = 1.5  # the first picture imports matplotlib
SAVING_SECONDS = 0.3  # at least, for a checkpoint; measured from the first one on
SAVING_RATE = 200e6  # bytes/s, hashed and written to a disk
SAVES = 2.0  # the end writes a model and a checkpoint
EVALUATING_SHARE = 0.15  # at most, of a run by the clock, goes into evaluations before the last


class Saver(Protocol):
    """What writes the checkpoints, as far as time goes."""

    seconds: float | None  # that the last checkpoint took; None: none was written yet

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written now."""
        ...


class EndReserve:
    """Keeps `budget.reserve` at what the end will take, as far as is known.

    session: the training of this process so far. val_tokens: in the validation split; 0: nothing is evaluated.
    checkpoint_bytes: size of one checkpoint, which `saver` writes. slowdown: how much longer things take now than on an
    idle machine.
    """

    def __init__(
        self, budget: Budget, session: Meter, evaluations: EvaluationPlan, val_tokens: int, saver: Saver,
        checkpoint_bytes: int, slowdown: Callable[[], float],
    ):  # fmt: skip
        self.budget, self.session, self.evaluations, self.val_tokens = budget, session, evaluations, val_tokens
        self.saver, self.slowdown = saver, slowdown
        self.saving_guess = SAVING_SECONDS + checkpoint_bytes / SAVING_RATE

    def reserve(self) -> None:
        """Reserve what evaluating, saving and exiting take. An evaluation as long as half of the run is left out."""
        evaluating = 1.25 * self.expected_evaluation()
        if evaluating > 0.5 * self.budget.span:
            evaluating = 0.0
        self.budget.keep(evaluating + self._ending_seconds())

    def time_for_evaluation(self, over: bool) -> float:
        """Seconds that an evaluation may take before it must be given up; 0: it is not worth a try.

        At the end it is always tried; before that, only if enough time is left for training.
        """
        if self.budget.deadline is None or self.budget.seconds is None:
            return math.inf
        left = self.budget.deadline - self.budget.clock() - self._ending_seconds()
        if over:
            return max(left, 0.0)
        share = min(left, EVALUATING_SHARE * self.budget.seconds - self.evaluations.spent)
        return left if self.expected_evaluation() < share else 0.0

    def expected_evaluation(self) -> float:
        """Seconds that the next evaluation takes: as many as the last one, or guessed from the speed of training."""
        if self.evaluations.last_seconds:
            return self.evaluations.last_seconds
        if not self.val_tokens:
            return 0.0
        return 0.5 * self.val_tokens / self.session.rate  # a forward pass is a third of a training step

    def _ending_seconds(self) -> float:
        """What saving (a checkpoint and the model, after one that is being written), drawing and exiting take."""
        slowdown = self.slowdown()
        saving = self.saving_guess * slowdown if self.saver.seconds is None else self.saver.seconds
        # A slowdown is a guess too: it must not take all the time from training.
        exiting = min((PLOTTING_SECONDS + EXIT_SECONDS) * slowdown, max(0.25 * self.budget.span, 0.0))
        return (SAVES + self.saver.busy) * saving + max(exiting, PLOTTING_SECONDS + EXIT_SECONDS)
