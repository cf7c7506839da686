"""The validator: evaluates the validation split and draws samples, when that is due and there is time for it.

evaluation.py says what a validation loss is, clock.py when there is time.
Tests: tests/training/test_loop.py, test_loop_by_the_clock.py.
"""

from collections.abc import Callable
from dataclasses import replace

from nano_llama.data.batches import Validation
from nano_llama.training.backend import Backend
from nano_llama.training.callback import Callback
from nano_llama.training.clock import RunClock
from nano_llama.training.evaluation import Evaluation, evaluate
from nano_llama.training.picture_answers import PictureAnswers
from nano_llama.training.ranks import Ranks, of_first
from nano_llama.training.recorder import Shown

ANSWERING = 4.0  # times as long as the loss is what asking about the same pictures takes, at most


class Validator:
    """interrupted: whether the user wants the run to stop; then nothing is evaluated any more. pictures: of runs that
    learn from them, what is asked after the loss."""

    def __init__(
        self, data: Validation, backend: Backend, clock: RunClock, callback: Callback,
        interrupted: Callable[[], bool], ranks: Ranks, pictures: PictureAnswers | None = None,
    ):  # fmt: skip
        self.data, self.backend, self.pictures = data, backend, pictures
        self.clock, self.callback, self.interrupted, self.ranks = clock, callback, interrupted, ranks

    def of_whole(self, loss: float) -> Evaluation:
        """An evaluation of the whole split that has found this loss; how long it took is not known any more."""
        return Evaluation(loss=loss, tokens=self.data.num_targets, bytes=self.data.num_bytes, seconds=0.0)

    def evaluate(self, step: int, over: bool, recorder: Shown, early: bool = False) -> Evaluation | None:
        """The validation loss after `step` updates; None: it is not due, or there is no time. over: the run ends.

        early: training has not come to all that validation asks for.
        """
        if not self.clock.evaluation_due(step, over) or not self.data.num_targets or self.interrupted():
            return None
        allowed = self.clock.time_for_evaluation(over)
        if allowed <= 0.0 and not over:
            return None
        begin, total, counted = self.clock.now(), self.data.num_targets, 0
        batches = self.data.num_batches

        def count(tokens: int) -> None:
            nonlocal counted
            counted += tokens
            self.callback.evaluating(counted, total)

        def give_up(seconds: float = 0.0) -> bool:
            """The last batch took so long: whether the next one (at the run's end), or all the rest, cannot fit."""
            if over and not counted:  # one batch always: the run ends with a validation loss
                return self.interrupted()
            seconds = seconds or self.clock.expected_evaluation() / batches
            ahead = 1.0 if over else batches * (1.0 - counted / total)
            late = self.clock.now() + ahead * seconds > begin + allowed
            return self.interrupted() or bool(of_first(self.ranks, late))

        evaluation = evaluate(
            self.backend.eval_loss_sum, self.data, on_batch=count, clock=self.clock.now, give_up=give_up,
            keep_head=over,
        )  # fmt: skip
        if evaluation and evaluation.partial:
            more = "." if self.pictures else "; run nano-llama eval for all of them."
            self.callback.notice(
                f"Validation covered the first {evaluation.tokens:,} of {total:,} tokens (time limit){more}"
            )
        if evaluation:
            evaluation = replace(evaluation, early=early)
            if self.pictures and not evaluation.partial:
                one_batch = ANSWERING * evaluation.seconds / batches
                found = self.pictures.ask(one_batch, self.clock.now, give_up)
                evaluation = replace(evaluation, accuracy=found)
            self.callback.evaluated(step, evaluation)
            self.callback.sampled(step, recorder.sample(step, evaluation.loss, self.backend.generate, give_up))
        elif not self.interrupted():
            more = "." if self.pictures else "; run nano-llama eval to measure it."
            self.callback.notice(f"Gave up validation (time limit){more}")
        self.clock.count_evaluation(self.clock.now() - begin, whole=total / counted if counted else 1.0)
        return evaluation
