"""Which of a run's minutes belong to its end: evaluating, saving, drawing and leaving must fit in before the deadline.

A run by steps has all the time in the world; the same questions are asked and answered with yes.
Not here: how far the run is (budget.py), when an evaluation is wished for (pace.py).
Tests: tests/training/test_loop_by_the_clock.py.
"""

import math
from collections.abc import Callable

from nano_llama.training.budget import Budget
from nano_llama.training.checkpoint_writer import CheckpointWriter
from nano_llama.training.pace import EvaluationPlan, Meter

# What the end of a run takes on an idle machine, generously.
LEAVING_SECONDS = 1.5  # from the end of `fit` to the end of the process
PLOTTING_SECONDS = 1.5  # the first picture imports matplotlib
SAVING_SECONDS = 0.3  # the least of a checkpoint; measured from the first one on
SAVING_RATE = 200e6  # bytes a second, hashed and brought to a disk
SAVES = 2.0  # the end writes a model and a checkpoint
EVALUATING_SHARE = 0.15  # of a run by the clock, at most, may go into evaluations before the last


class Timekeeper:
    """Keeps `budget.reserve` at what the end takes, as far as is known by then.

    session: the training of this process so far. val_tokens: of the validation split; 0 where none is evaluated.
    checkpoint_bytes: of one checkpoint, which `writer` writes. slowdown: how much longer things take here and now than
    on an idle machine.
    """

    def __init__(
        self, budget: Budget, session: Meter, evaluations: EvaluationPlan, val_tokens: int, writer: CheckpointWriter,
        checkpoint_bytes: int, slowdown: Callable[[], float],
    ):  # fmt: skip
        self.budget, self.session, self.evaluations, self.val_tokens = budget, session, evaluations, val_tokens
        self.writer, self.slowdown = writer, slowdown
        self.saving_guess = SAVING_SECONDS + checkpoint_bytes / SAVING_RATE

    def reserve(self) -> None:
        """Keep back what evaluating, saving and leaving take. An evaluation as long as half of the run is left out."""
        evaluating = 1.25 * self.expected_evaluation()
        if evaluating > 0.5 * self.budget.span:
            evaluating = 0.0
        self.budget.keep(evaluating + self._ending_seconds())

    def seconds_for_evaluation(self, over: bool) -> float:
        """What an evaluation may take before it must be given up; 0 where it is not worth a try.

        At the end it is always tried; before, only where enough is left for training.
        """
        if self.budget.deadline is None or self.budget.seconds is None:
            return math.inf
        left = self.budget.deadline - self.budget.clock() - self._ending_seconds()
        if over:
            return max(left, 0.0)
        share = min(left, EVALUATING_SHARE * self.budget.seconds - self.evaluations.spent)
        return left if self.expected_evaluation() < share else 0.0

    def expected_evaluation(self) -> float:
        """How long the next evaluation takes: as the last one, or guessed from the speed of training."""
        if self.evaluations.last_seconds:
            return self.evaluations.last_seconds
        if not self.val_tokens:
            return 0.0
        return 0.5 * self.val_tokens / self.session.rate  # a forward pass is a third of a training step

    def _ending_seconds(self) -> float:
        """How long saving (a checkpoint and the model, after one that is being written), drawing and leaving take."""
        slowdown = self.slowdown()
        saving = self.saving_guess * slowdown if self.writer.seconds is None else self.writer.seconds
        # A slowdown is a guess too: it shall not take all the time from training.
        leaving = min((PLOTTING_SECONDS + LEAVING_SECONDS) * slowdown, max(0.25 * self.budget.span, 0.0))
        return (SAVES + self.writer.busy) * saving + max(leaving, PLOTTING_SECONDS + LEAVING_SECONDS)
