"""Which of a run's minutes belong to its end: evaluating, saving, drawing and leaving must fit in before the deadline.

A run by steps has all the time in the world; the same questions are asked and answered with yes.
Not here: how far the run is (budget.py), when an evaluation is wished for (pace.py).
Tests: tests/core/training/test_loop_by_the_clock.py.
"""

import math
from collections.abc import Callable

from nano_llama.core.training.budget import Budget
from nano_llama.core.training.pace import EvaluationPlan, Meter

# What the end of a run takes on an idle machine, generously.
LEAVING_SECONDS = 1.5  # from the end of `fit` to the end of the process
PLOTTING_SECONDS = 1.5  # the first picture imports matplotlib
SAVING_SECONDS = 0.3  # of a small model; measured from the first checkpoint on
EVALUATING_SHARE = 0.15  # of a run by the clock, at most, may go into evaluations before the last


class Timekeeper:
    """Keeps `budget.reserve` at what the end takes, as far as is known by then.

    session: the training of this process so far. val_tokens: of the validation split; 0 where none is evaluated.
    slowdown: how much longer things take here and now than on an idle machine.
    """

    def __init__(
        self, budget: Budget, session: Meter, evaluations: EvaluationPlan, val_tokens: int,
        slowdown: Callable[[], float],
    ):  # fmt: skip
        self.budget, self.session, self.evaluations, self.val_tokens = budget, session, evaluations, val_tokens
        self.slowdown = slowdown
        self.saving_seconds = SAVING_SECONDS  # of the last checkpoint

    def reserve(self) -> None:
        """Keep back what evaluating, saving and leaving take. An evaluation as long as half of the run is left out."""
        evaluating = 1.25 * self._evaluation_seconds()
        if self.budget.seconds and evaluating > 0.5 * self.budget.seconds:
            evaluating = 0.0
        self.budget.keep(evaluating + self._ending_seconds())

    def allows_evaluation(self, over: bool) -> bool:
        """At the end it is always tried, for it can be given up; before, only where enough is left for training."""
        seconds, left = self._evaluation_seconds(), self.seconds_until_leaving()
        if over or not self.budget.seconds:
            return left > 0
        return seconds < left and self.evaluations.spent + seconds < EVALUATING_SHARE * self.budget.seconds

    def seconds_until_leaving(self) -> float:
        """What is left before only saving, drawing and leaving fit in."""
        if self.budget.deadline is None:
            return math.inf
        return self.budget.deadline - self.budget.clock() - self._ending_seconds()

    def _evaluation_seconds(self) -> float:
        """How long the next evaluation takes: as the last one, or guessed from the speed of training."""
        if self.evaluations.last_seconds:
            return self.evaluations.last_seconds
        if not self.val_tokens:
            return 0.0
        return 0.5 * self.val_tokens / self.session.rate  # a forward pass is a third of a training step

    def _ending_seconds(self) -> float:
        """How long saving (a checkpoint and the model), drawing and leaving take."""
        return 2.0 * self.saving_seconds + (PLOTTING_SECONDS + LEAVING_SECONDS) * self.slowdown()
