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
HEAD_SHARE = 0.05  # of a run by the clock, for the head of a split that takes more than half of the run
EVALUATION_SLACK = 0.3  # seconds: a short evaluation may take several times what is expected
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
        self.afterwards = 0.0  # seconds that are kept for what comes after the run
        self.saving_guess = SAVING_SECONDS + checkpoint_bytes / SAVING_RATE
        self.step_then = 0.0  # what a step took at the last evaluation

    def reserve(self) -> None:
        """Reserve what evaluating, saving and exiting take; of an evaluation as long as half of the run, the head."""
        evaluating = 1.25 * self.expected_evaluation() + EVALUATION_SLACK * bool(self.val_tokens)
        if evaluating > 0.5 * self.budget.span:
            one_batch = 0.5 * self.budget.typical_step  # a forward pass is a third of a training step
            evaluating = max(HEAD_SHARE * self.budget.span, one_batch)
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

    def count_evaluation(self, seconds: float, whole: float) -> None:
        """One took so long. If it was given up, the whole would have taken `whole` times as long."""
        self.evaluations.count(seconds, whole)
        self.step_then = self.budget.typical_step

    def expected_evaluation(self) -> float:
        """Seconds that the next evaluation takes: from the last one, or from recent steps, at the speed of now."""
        step = self.budget.typical_step
        if self.evaluations.last_seconds:
            return self.evaluations.last_seconds * (step / self.step_then if self.step_then else 1.0)
        if not self.val_tokens or not self.session.steps:
            return 0.0
        tokens_per_step = self.session.tokens / self.session.steps
        return 0.5 * self.val_tokens / tokens_per_step * step

    def _ending_seconds(self) -> float:
        """What saving (a checkpoint and the model, after one that is being written), drawing and exiting take, and what
        comes in between."""
        slowdown = self.slowdown()
        saving = self.saving_guess * slowdown if self.saver.seconds is None else self.saver.seconds
        # A slowdown is a guess too: it must not take all the time from training.
        exiting = min((PLOTTING_SECONDS + EXIT_SECONDS) * slowdown, max(0.25 * self.budget.span, 0.0))
        return (SAVES + self.saver.busy) * saving + max(exiting, PLOTTING_SECONDS + EXIT_SECONDS) + self.afterwards
