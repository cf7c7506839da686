"""The training loop, one for every engine: batches in, updates, evaluations, checkpoints.

It is composed of parts, all valid before `fit`: a backend (the arithmetic, backend.py), a clock (how far, what is due,
clock.py), checkpoints, a validator, a watchdog, and a callback that shows it all. setup.py puts them together.
Tests: tests/training/test_loop.py.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

from nano_llama.core.loss import bits_per_byte
from nano_llama.data.batches import Batch, BatchStream, tokens_in
from nano_llama.data.openings import Opening
from nano_llama.data.prefetch import Prefetcher
from nano_llama.data.vqa.dataset import PictureDataset
from nano_llama.training.backend import Backend, StepResult
from nano_llama.training.bad_batches import BadBatches, first_loss_notice
from nano_llama.training.callback import Callback, RunFacts
from nano_llama.training.checkpoint import prune_checkpoints, remove_later
from nano_llama.training.checkpoints import Checkpoints
from nano_llama.training.clock import RunClock
from nano_llama.training.evaluation import Evaluation
from nano_llama.training.final_model import FinalModel
from nano_llama.training.interrupt import GracefulInterrupt
from nano_llama.training.model_files import ModelFiles
from nano_llama.training.neighbours import Neighbours
from nano_llama.training.outcome import (
    TrainingResult,
    goal_was_reached,
    interrupted,
    interrupted_at_once,
    nothing_left,
    reached_goal,
)
from nano_llama.training.pace import Meter
from nano_llama.training.picture_answers import PictureAnswers
from nano_llama.training.plots import made_how, title_of
from nano_llama.training.ranks import of_first
from nano_llama.training.record import Speed, StepRecord
from nano_llama.training.recorder import Recorder, SamplesOnly, Shown
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.schedule import learning_rate, warm_up_by_steps
from nano_llama.training.settings import TrainSettings
from nano_llama.training.start import TrainingData
from nano_llama.training.state import Best, RunState
from nano_llama.training.step_feed import StepFeed
from nano_llama.training.validator import Validator


class TrainingLoop:
    """One run, ready to `fit`. resumed_at: the step it resumes from, 0 without a checkpoint; None: a new run."""

    def __init__(
        self, settings: TrainSettings, dataset: TrainingData, batches: BatchStream, backend: Backend,
        folder: RunFolder, model: ModelFiles, *, callback: Callback, clock: RunClock, checkpoints: Checkpoints,
        state: RunState, resumed_at: int | None = None,
    ):  # fmt: skip
        self.settings, self.dataset, self.batches, self.backend = settings, dataset, batches, backend
        self.folder, self.model, self.callback, self.clock = folder, model, callback, clock
        self.checkpoints = checkpoints
        self.state, self.resumed_at = state, resumed_at
        self.config, self.tokenizer, self.expected = backend.config, dataset.tokenizer, backend.expected
        self.ranks = clock.ranks
        self.interrupt = GracefulInterrupt()
        self.signal = 0  # that any rank has received; 0: none
        self.pictures: PictureAnswers | None = None
        if backend.answer is not None and isinstance(dataset, PictureDataset):
            self.pictures = PictureAnswers(dataset, backend.answer, settings.samples)
        self.validator = Validator(
            dataset.validation(settings.batch_size, settings.context, settings.document_mask),
            backend, clock, callback, interrupted=self._interrupted, ranks=self.ranks, pictures=self.pictures,
        )  # fmt: skip
        self.final_model = FinalModel(folder, model, checkpoints, backend, self.ranks, callback.notice)
        self.bad_batches = BadBatches(settings, folder, self.tokenizer, checkpoints, callback.notice)

    def fit(self) -> TrainingResult:
        """Train to the end. Raises TrainingInterrupted (Ctrl-C, after saving) or TrainingDiverged."""
        device = self.backend.device
        with device.computing():
            self.expected = replace(self.expected, peak_flops=device.peak_flops())
            self.clock.expect_step(self.expected.step_seconds(self.settings.tokens_per_step))
            self._check_can_begin()
            of_first(self.ranks, 0.0)  # all have looked at the folder before one writes there
            with self.folder.held() if self.ranks.rank == 0 else nullcontext():
                recorder = self._recorder()
                try:
                    with self.interrupt, self._open_stream() as stream:
                        feed = StepFeed(stream, self.settings.accumulate, self.backend, self.clock.now)
                        return self._run(feed, recorder)
                except BaseException as error:
                    with suppress(Exception):  # the user is told what ended the run
                        self.checkpoints.wait()
                    if isinstance(error, KeyboardInterrupt):
                        raise interrupted_at_once(self.folder) from error
                    raise
                finally:
                    recorder.close()
                    self.callback.ended()

    def _run(self, feed: StepFeed, recorder: Shown) -> TrainingResult:
        settings, state, clock, callback = self.settings, self.state, self.clock, self.callback
        callback.started(self._facts())
        if settings.evaluations and not self.validator.data.num_targets:
            callback.notice("There is no validation text, so no validation loss will be computed.")
        self.backend.warm_up(self.batches.at(state.data_position))
        self._check_can_begin()
        clock.start_training()
        neighbours = Neighbours(callback.notice if self.ranks.size == 1 else lambda text: None)
        over = False
        while not over:
            lr, grad_norm = self._step(feed)
            over = self._is_over()
            with self.checkpoints.checkpoint_on_error():
                with self.backend.use_averaged_weights():
                    over, evaluation = self._evaluate(over, recorder)
                if not over:
                    feed.begin()  # a device that computes by itself does so while this step is reported
            neighbours.look()
            best = self.final_model.save(state) if over else None
            record = self._record(lr, grad_norm, evaluation, best)
            callback.stepped(record)
            if over or evaluation or state.step == 1 or state.step % settings.log_every == 0:
                record = replace(record, processes=self._processes(record))
                with self.checkpoints.checkpoint_on_error():
                    recorder.write(record)
                state.start_line()
                clock.start_line()
            if (over and not self.signal) or recorder.picture_is_due():
                recorder.draw(callback.notice)
            if over or evaluation or clock.checkpoint_due():
                self.checkpoints.save()  # last: once it says that the run has ended, all else is on disk
        self.checkpoints.wait()
        if self.signal:
            recorder.draw(callback.notice)  # after all is saved: whoever sent the signal may soon kill
            raise interrupted(self.folder, state.step, self.signal)
        if best:
            self.final_model.load()
        found = self.validator.of_whole(best.loss) if best else None
        return TrainingResult(out=self.folder.path, last=record, elapsed_s=clock.elapsed(), best=found)

    def _step(self, feed: StepFeed) -> tuple[float, float]:
        """One step -> its learning rate, and the norm of its gradient."""
        state, lr, result = self.state, self._learning_rate(), None
        while result is None:  # a bad batch may be skipped
            with self.checkpoints.checkpoint_on_error():
                batches, position = feed.next()
            result = self.train_step(batches, lr)
            state.data_position = position
        seconds, waited = feed.ended()
        fresh = state.step == 0 and self.settings.init_from is None
        if fresh and (notice := first_loss_notice(result.loss, self.dataset.vocab_size)):
            self.callback.notice(notice)
        tokens = sum(map(tokens_in, batches))
        state.count_step(result.loss, tokens)
        self.clock.count_step(tokens, seconds, waited)
        return lr, result.grad_norm

    def _learning_rate(self) -> float:
        """Of the next step."""
        settings, progress = self.settings, self.clock.midway(self.state.step)
        lr = learning_rate(
            settings.schedule, progress, settings.lr, settings.warmup, settings.final_lr, settings.decay
        )  # fmt: skip
        if self.clock.by_the_clock and settings.warmup:
            lr = warm_up_by_steps(lr, self.state.step, settings.lr, warming_up=progress < settings.warmup)
        return lr

    def train_step(self, batches: Sequence[Batch], lr: float) -> StepResult | None:
        """One update from the mean gradient over all counted targets of `batches`; None: they were bad and skipped.

        Raises TrainingDiverged if they were bad and the settings say to stop.
        """
        with self.checkpoints.checkpoint_on_error():
            result = self.backend.gradient(batches)
        fault = self.state.watchdog.check(result)
        if fault and not self.bad_batches.tolerate(fault, result, batches, self.state, lr):
            self.backend.zero_grad()
            self.state.watchdog.skip()
            return None
        self.backend.update(lr)
        self.state.watchdog.learn(result.loss)
        return result

    def _evaluate(self, over: bool, recorder: Shown) -> tuple[bool, Evaluation | None]:
        """Evaluate if that is due -> whether the run is over now, and the evaluation."""
        step, goal = self.state.step, self.settings.stop_loss
        early = self.state.data_position <= self.batches.early_batches
        evaluation = self.validator.evaluate(step, over, recorder, early)
        reached = evaluation is not None and evaluation.counts and reached_goal(self.settings, evaluation.loss)
        if reached:
            self.callback.notice(f"The validation loss is {goal:g} or less: the run ends here.")
        if not over and (reached or self.signal or self.clock.progress(step) >= 1.0):  # evaluating takes time
            over, evaluation = True, evaluation or self.validator.evaluate(step, True, recorder, early)
        if evaluation and evaluation.counts:
            self.state.count_evaluation(evaluation.loss)
        return over, evaluation

    def _is_over(self) -> bool:
        """Asked once a step, since all ranks wait for each other's answer."""
        return self._interrupted() or self.clock.progress(self.state.step) >= 1.0

    def _interrupted(self) -> bool:
        """Whether any rank has received a signal to stop."""
        self.signal = int(max(self.ranks.gathered(self.interrupt.signal or 0)))
        return self.signal != 0

    def _openings(self) -> list[Opening]:
        """What the samples begin with: none of the user's own prompt needs them."""
        settings = self.settings
        if not settings.samples or not settings.evaluations:
            return []
        return self.dataset.openings(settings.samples, settings.context // 2)

    # -- before the first step ----------------------------------------------------------------------------------------

    def _check_can_begin(self) -> None:
        """Raise UserError if the run had ended before, or no time is left for a step."""
        settings, state, clock = self.settings, self.state, self.clock
        if clock.progress(state.step) >= 1.0:
            raise nothing_left(settings, self.folder.path, state.step, clock.past_progress, clock.until_deadline())
        if state.val_loss is not None and reached_goal(settings, state.val_loss):
            raise goal_was_reached(settings, self.folder.path, state.val_loss)

    def _recorder(self) -> Shown:
        """The first rank's prepares the run's folder and writes there."""
        if self.ranks.rank != 0:
            return SamplesOnly(self.settings, self.tokenizer, self._openings())
        self._prepare_folder()
        return Recorder(
            self.folder, self.settings, self.tokenizer, self._openings(), keep_to=self.resumed_at, clock=self.clock.now,
            title=title_of(self.config.num_parameters, self.settings),
            caption="; ".join(made_how(self.config, self.settings)), pictures=self.pictures,
        )  # fmt: skip

    def _prepare_folder(self) -> None:
        if self.resumed_at is None:
            self.folder.check_new()  # another process may have begun here meanwhile
        self.folder.create(self.settings, self.model)
        if self.resumed_at is not None:
            remove_later(self.folder.checkpoints, self.resumed_at)  # damaged, or the run would resume from there
        prune_checkpoints(self.folder.checkpoints, self.settings.keep_checkpoints)

    def _open_stream(self) -> AbstractContextManager[BatchStream | Prefetcher]:
        """The batches from here on, made ahead by worker processes if the settings ask for them."""
        workers = self.settings.data_workers
        return Prefetcher(self.batches, workers) if workers else nullcontext(self.batches)

    # -- what is reported ---------------------------------------------------------------------------------------------

    def _facts(self) -> RunFacts:
        return RunFacts(
            settings=self.settings, config=self.config, out=self.folder.path, device=self.backend.device.name,
            deterministic=self.backend.device.deterministic,
            train_tokens=self.dataset.train.num_tokens, val_tokens=self.dataset.val.num_tokens,
            resumed_at=self.resumed_at, preflight=self.expected,
        )  # fmt: skip

    def _record(self, lr: float, grad_norm: float, evaluation: Evaluation | None, best: Best | None) -> StepRecord:
        """best: the evaluation that chose the run's model, where that is not of this step."""
        state, clock, text = self.state, self.clock, self.dataset.train
        self.expected = self.expected.reaching(clock.fastest)
        return StepRecord(
            step=state.step, progress=clock.progress(state.step), tokens=state.tokens, train_loss=state.train_loss,
            train_bits_per_byte=bits_per_byte(state.train_loss, text.num_learned, text.num_bytes), lr=lr,
            grad_norm=grad_norm, session=self._speed(clock.session), recent=self._speed(clock.recent),
            checkpoint_pause_s=self.checkpoints.pause, peak_memory=self.backend.device.peak_memory(),
            deterministic=self.backend.device.deterministic,
            elapsed_s=clock.elapsed(), seconds_left=clock.seconds_left(state.step), evaluation=evaluation,
            model_step=best.step if best else None,
        )  # fmt: skip

    def _processes(self, record: StepRecord) -> dict[str, Any]:
        """What a line of metrics.jsonl says of the backend's choices, and of a run over many processes."""
        if self.ranks.size == 1:
            return self.backend.figures()
        memory, stall = (self.ranks.gathered(value) for value in (record.peak_memory, record.recent.data_stall))
        return {
            **self.backend.figures(), "rank_memory_bytes": list(map(int, memory)),
            "rank_data_stall": [round(share, 4) for share in stall],
        }  # fmt: skip

    def _speed(self, meter: Meter) -> Speed:
        return Speed(tokens_per_second=meter.rate, mfu=self.expected.mfu(meter.rate), data_stall=meter.stall)
