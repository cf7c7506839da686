"""The training loop, once for every engine: batches in, updates, and everything that is reported and kept.

A volume derives its Trainer from `TrainingLoop` and brings its arithmetic: build, gradient, update, forget, sum_nats,
generate, weights, training_tensors, restore. Everything else is composed here of small parts: budget and timekeeper
(how long), watchdog (what goes wrong), evaluation, checkpoints, reports, Ctrl-C. Not here: any tensor.
Tests: tests/training/test_loop.py.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.loss import bits_per_byte
from nano_llama.core.machine import available_bytes, peak_resident_bytes
from nano_llama.core.sampling import SamplingParams
from nano_llama.data.batches import Batch, Batches
from nano_llama.data.dataset import Dataset
from nano_llama.data.prefetch import Prefetcher
from nano_llama.training.budget import Budget, Clock, slowdown
from nano_llama.training.checkpoint import Checkpoint, prune_checkpoints, remove_later
from nano_llama.training.checkpoint_writer import CheckpointWriter
from nano_llama.training.evaluation import Evaluation, evaluate_split
from nano_llama.training.interrupt import CtrlC
from nano_llama.training.metrics import Row
from nano_llama.training.outcome import (
    TrainingResult,
    diverged,
    goal_was_reached,
    interrupted,
    interrupted_at_once,
    nothing_left,
    reached_goal,
)
from nano_llama.training.pace import EvaluationPlan, Meter
from nano_llama.training.preflight import Preflight, check_memory, checkpoint_bytes, preflight
from nano_llama.training.progress import Progress, RunFacts, StepFacts
from nano_llama.training.reports import Reports
from nano_llama.training.run_folder import RunFolder
from nano_llama.training.samples import check_sample_prompt
from nano_llama.training.schedule import learning_rate
from nano_llama.training.settings import TrainSettings
from nano_llama.training.start import newest_checkpoint, past_progress, prepare_dataset, starting_point
from nano_llama.training.tensorboard import check_tensorboard
from nano_llama.training.timekeeper import Timekeeper
from nano_llama.training.watchdog import StepResult, Watchdog, first_loss_remark, keep_batch

# What the loop itself keeps in a checkpoint.
STATE = ("tokens", "progress", "elapsed_s", "data_position", "loss_sum", "loss_steps", "watchdog", "dataset")


class TrainingLoop(ABC):
    """One run: `Trainer(settings, out).fit()`.

    settings: every setting. out: the run's folder; it must be new, or with `resume` hold a run that these settings may
    go on with. dataset: what to learn from, by default `settings.data` prepared. start: when the process began, on
    `clock`'s scale; `max_minutes` and `elapsed_s` count from there (default: now).
    Raises UserError before anything is written when the settings cannot be honoured.
    """

    device = "cpu"  # what the model lies on, as the user reads it

    def __init__(
        self,
        settings: TrainSettings,
        out: str | Path,
        *,
        resume: bool = False,
        dataset: Dataset | None = None,
        progress: Progress | None = None,
        start: float | None = None,
        clock: Clock = time.monotonic,
    ):
        self.clock, self.start = clock, clock() if start is None else start
        self.watcher = progress or Progress()
        self.folder = RunFolder(out)
        self.folder.check_free()
        if resume:
            self.settings_before = self.folder.load_settings()
            settings = self.folder.resumed_settings(settings.to_json())
        else:
            self.folder.check_new()
        self.settings = settings
        self.check_settings()
        if settings.tensorboard:
            check_tensorboard()
        self.dataset = dataset or prepare_dataset(settings, self.folder.path if resume else None, self.watcher)
        self.tokenizer = self.dataset.tokenizer
        check_sample_prompt(settings, self.tokenizer)
        checkpoint = newest_checkpoint(self.folder.checkpoints, STATE, self.watcher.remark) if resume else None
        self.config: LlamaConfig
        self.config, first_weights = starting_point(settings, self.dataset, checkpoint)
        self.batches = Batches(
            self.dataset.train, settings.batch_size, settings.context, settings.seed, apart=not settings.attend_across
        )
        self.data_position = 0  # batches that went into updates, or were skipped
        self.stream: Batches | Prefetcher
        self.expected = self.expect(self.config)
        check_memory(self.expected, settings, self.available_memory())
        self.build(self.config, first_weights)

        self.step = self.tokens = 0
        self.watchdog = Watchdog()
        self.loss_sum, self.loss_steps = 0.0, 0  # since the last line of metrics.jsonl
        self.past_progress = self.past_seconds = 0.0  # of the sessions before this one
        self.resumed_at: int | None = 0 if resume else None
        self.resumed_state: dict[str, Any] = {}
        if checkpoint:
            self._go_on_from(checkpoint)
        self.session, self.line = Meter(), Meter()  # of training in this process, and since the last line
        self.lr = self.grad_norm = math.nan  # of the last step
        self.evaluations = EvaluationPlan(settings.evaluations, self.past_progress)
        self.goal_reached = False  # stop_loss
        self.reports: Reports
        self.budget: Budget
        self.time: Timekeeper
        self.ctrl_c: CtrlC
        self.writer = CheckpointWriter(self.folder.checkpoints, settings.keep_checkpoints)

    # -- what an engine brings ------------------------------------------------------------------------------------

    @abstractmethod
    def check_settings(self) -> None:
        """Raise UserError for a setting that this engine cannot honour."""

    @abstractmethod
    def build(self, config: LlamaConfig, weights: Mapping[str, np.ndarray] | None) -> None:
        """Make the model, with these weights or (None) fresh ones by `settings.seed`, and its optimizer."""

    @abstractmethod
    def restore(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Put the optimizer and random generators into the state that `training_tensors` gave."""

    @abstractmethod
    def gradient(self, batches: Sequence[Batch]) -> StepResult:
        """Compute and hold the mean gradient over all counted targets of `batches`; where it fails, change nothing."""

    @abstractmethod
    def update(self, lr: float) -> None:
        """Clip the gradient that is held, change the weights by it, and let it go."""

    @abstractmethod
    def forget(self) -> None:
        """Let the gradient go without an update."""

    @abstractmethod
    def sum_nats(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """The loss summed over the counted targets, without a gradient."""

    @abstractmethod
    def generate(self, prompt_ids: Sequence[int], params: SamplingParams) -> Iterator[int]:
        """The tokens that the model as it is now lets follow the prompt, one by one, until the text or context ends."""

    @abstractmethod
    def weights(self) -> Mapping[str, np.ndarray]:
        """The model as it is judged and saved, by the parameters' names: an average where the run keeps one."""

    @abstractmethod
    def training_tensors(self) -> Mapping[str, np.ndarray]:
        """All else that the next update depends on: the optimizer's memory, the states of random generators, and
        the weights that are trained where `weights` gives their average."""

    def warm_up(self, batch: Batch) -> None:  # noqa: B027 (most engines need none)
        """What must happen once before steps take their usual time (compiling). The run's state stays as it is."""

    def expect(self, config: LlamaConfig) -> Preflight:
        """What this run will need, before anything is made."""
        return preflight(config, self.settings)

    def available_memory(self) -> int | None:
        """Bytes that the run may take, where its model will lie; None: unknown."""
        return available_bytes()

    def peak_flops(self) -> float | None:
        """FLOP/s of the device's matrix products in the run's precision, measured; None: not measured."""
        return None

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilization at this speed: useful FLOP/s over the device's own measured ones; None: not known."""
        peak = self.expected.peak_flops
        return tokens_per_second * self.expected.flops_per_token / peak if peak else None

    def peak_memory(self) -> int:
        """Bytes that the run took at most so far, where its model lies."""
        return peak_resident_bytes()

    def averaged(self) -> AbstractContextManager:
        """Entered around an evaluation: within, the model is what `weights` gives; after it, what is trained again."""
        return nullcontext()

    def computing(self) -> AbstractContextManager:
        """Entered around the whole run: for what an engine sets on the machine and must set back."""
        return nullcontext()

    # -- the run --------------------------------------------------------------------------------------------------

    def fit(self) -> TrainingResult:
        """Train to the end. Raises TrainingInterrupted (Ctrl-C, after saving) or TrainingDiverged."""
        settings = self.settings
        self.budget = Budget(
            max_steps=settings.max_steps, max_minutes=settings.max_minutes,
            start=self.start, past=self.past_progress, clock=self.clock,
        )  # fmt: skip
        with self.computing():
            self.expected = replace(self.expected, peak_flops=self.peak_flops())
        self.budget.guess_step(self.expected.step_seconds(settings.tokens_per_step))
        self._look_whether_it_can_begin()
        self.time = Timekeeper(
            self.budget, self.session, self.evaluations, self.dataset.val.num_tokens if settings.evaluations else 0,
            self.writer, checkpoint_bytes(self.config, settings), self.slowdown,
        )  # fmt: skip
        with self.folder.held():
            if self.resumed_at is None:
                self.folder.check_new()  # another may have begun here meanwhile
            self.folder.create(settings, self.config, self.tokenizer)
            if self.resumed_at is not None:
                remove_later(self.folder.checkpoints, self.resumed_at)  # damaged, or the run would go on from there
            prune_checkpoints(self.folder.checkpoints, settings.keep_checkpoints)
            self.reports = Reports(
                self.folder, settings, self.tokenizer, self.dataset.val, keep_to=self.resumed_at, clock=self.clock,
                title=f"{Path(settings.data).name}: {self.config.num_parameters:,} parameters",
            )  # fmt: skip
            try:
                with self.computing(), CtrlC() as self.ctrl_c, self._open_stream() as self.stream:
                    return self._run()
            except BaseException as error:
                with suppress(Exception):  # what ended the run is what the user hears
                    self.writer.wait()
                if isinstance(error, KeyboardInterrupt):
                    raise interrupted_at_once(self.folder.path) from error
                raise
            finally:
                self.reports.close()
                self.watcher.ended()

    def _run(self) -> TrainingResult:
        self.watcher.started(
            RunFacts(
                settings=self.settings, config=self.config, out=self.folder.path, device=self.device,
                train_tokens=self.dataset.train.num_tokens, val_tokens=self.dataset.val.num_tokens,
                resumed_at=self.resumed_at, preflight=self.expected,
            )
        )  # fmt: skip
        if self.settings.evaluations and self.dataset.val.num_tokens < 2:
            self.watcher.remark("There is no validation text, so there will be no validation loss.")
        self.warm_up(self.batches.at(self.data_position))
        self._look_whether_it_can_begin()
        self.checkpointed = self.clock()
        self.budget.start_training()
        over, evaluation, train_loss = False, None, math.nan
        while not over:
            self._update()
            over = self._is_over()
            with self._keeping(), self.averaged():
                evaluation = self._evaluate(over)
                self._look_at_goal(evaluation)
                if not over and self._is_over():  # evaluating takes time
                    over, evaluation = True, evaluation or self._evaluate(over=True)
            train_loss = self.loss_sum / self.loss_steps
            facts = self._facts(train_loss)
            self.watcher.stepped(facts)
            if over or evaluation or self.step == 1 or self.step % self.settings.log_every == 0:
                with self._keeping():
                    self._write_line(facts, evaluation)
            if over:
                self.folder.save_model(self.config, self.weights(), self.tokenizer)
            if over or self.reports.picture_is_due():
                self.reports.draw(self.watcher.remark)
            if over or evaluation or self._checkpoint_is_due():
                self._save_checkpoint(evaluation)  # last: once it says that the run has ended, all else is there
        self.writer.wait()
        if self.ctrl_c.signal is not None:
            raise interrupted(self.folder.path, self.step, self.ctrl_c.signal)
        return TrainingResult(
            out=self.folder.path, steps=self.step, tokens=self.tokens, train_loss=train_loss, evaluation=evaluation,
            tokens_per_second=self.session.rate, elapsed_s=self._elapsed(),
        )  # fmt: skip

    def _open_stream(self) -> AbstractContextManager[Batches | Prefetcher]:
        """The batches from here on, made ahead where that is wished for."""
        workers = self.settings.data_workers
        return Prefetcher(self.batches, workers) if workers else nullcontext(self.batches)

    @contextmanager
    def _keeping(self) -> Iterator[None]:
        """Around what may fail while the run's state is whole: what was learned so far is kept, and the error goes on.

        Not at the run's end, of which a checkpoint would say that nothing is left to do.
        """
        try:
            yield
        except Exception:
            if self.step > (self.resumed_at or 0) and self.budget.progress(self.step) < 1.0:
                with suppress(Exception):  # the first error is what the user hears
                    self._save_checkpoint()
            raise

    def _look_whether_it_can_begin(self) -> None:
        """Raise UserError where the run had ended before, or a step does not fit into the time that is left."""
        settings, state = self.settings, self.resumed_state
        if self.budget.progress(self.step) >= 1.0:
            left = None if self.budget.deadline is None else self.budget.deadline - self.clock()
            raise nothing_left(
                settings, self.folder.path, self.step, self.past_progress, left, self.budget.step_seconds
            )
        if reached_goal(settings, state):
            raise goal_was_reached(settings, self.folder.path, state["val_loss"])

    def _is_over(self) -> bool:
        return self.ctrl_c.pressed or self.goal_reached or self.budget.progress(self.step) >= 1.0

    def _look_at_goal(self, evaluation: Evaluation | None) -> None:
        """Whether the loss is as low as `stop_loss` wishes."""
        if evaluation and reached_goal(self.settings, {"val_loss": evaluation.loss}):
            self.goal_reached = True
            self.watcher.remark(f"The validation loss is {self.settings.stop_loss:g} or less: the run ends here.")

    def _update(self) -> None:
        """One step."""
        settings, begin, waited = self.settings, self.clock(), 0.0
        self.lr = learning_rate(
            settings.schedule, self.budget.midway(self.step), settings.lr, settings.warmup, settings.final_lr,
            settings.decay,
        )  # fmt: skip
        result = None
        while result is None:  # a bad batch may be skipped
            asked = self.clock()
            with self._keeping():
                batches = [self.stream.next() for _ in range(settings.accumulate)]
            waited += self.clock() - asked
            result = self.train_step(batches, self.lr)
            self.data_position = self.stream.position
        seconds = self.clock() - begin
        loss, self.grad_norm = result
        if self.step == 0 and settings.init_from is None:
            remark = first_loss_remark(loss, self.config.vocab_size)
            if remark:
                self.watcher.remark(remark)
        self.step += 1
        self.tokens += settings.tokens_per_step
        self.loss_sum, self.loss_steps = self.loss_sum + loss, self.loss_steps + 1
        for meter in (self.session, self.line):
            meter.add(settings.tokens_per_step, seconds, waited)
        self.budget.count_step(seconds)
        self.time.reserve()

    def train_step(self, batches: Sequence[Batch], lr: float) -> StepResult | None:
        """One update from the mean gradient over all counted targets of `batches`; None: it was not made, for the
        watchdog found these batches bad and the settings say to skip such. Raises TrainingDiverged where they say stop.
        """
        with self._keeping():
            result = self.gradient(batches)
        wrong = self.watchdog.judge(result)
        if wrong and not self._goes_on(wrong, result, batches, lr):
            self.forget()
            self.watchdog.skip()
            return None
        self.update(lr)
        self.watchdog.learn(result.loss)
        return result

    def _goes_on(self, wrong: str, result: StepResult, batches: Sequence[Batch], lr: float) -> bool:
        """Say what is wrong and keep the batch -> whether the update is made all the same."""
        wish = self.settings.on_nan if wrong == "nan" else self.settings.on_spike
        texts = [self.tokenizer.decode(row.tolist()) for tokens, *_ in batches for row in tokens]
        path = keep_batch(self.folder.bad_batches, self.step + 1, wrong, result, batches, texts)
        kept = f" Its batch is in {path}." if path else ""
        if wish == "stop" or (wish == "skip" and self.watchdog.gives_up):
            self.writer.wait()
            raise diverged(self.settings, self.folder.path, self.step + 1, wrong, result, lr, kept)
        expected = "" if wrong == "nan" else f", far above {self.watchdog.mean:.2f}"
        self.watcher.remark(
            f"Step {self.step + 1:,}: loss {result.loss:.4g}, gradient {result.grad_norm:.3g}{expected}"
            f"{' (skipped)' if wish == 'skip' else ''}.{kept}"
        )
        return wish == "report"

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _evaluate(self, over: bool) -> Evaluation | None:
        """The validation loss, when it is due and there is time for it."""
        if self.ctrl_c.pressed or not self.evaluations.due(self.budget.progress(self.step), over):
            return None
        split = self.dataset.val
        if split.num_tokens < 2:
            return None
        allowed = self.time.seconds_for_evaluation(over)
        if allowed <= 0.0:
            if over:
                self.watcher.remark("No time is left for a validation loss: nano-llama eval finds it.")
            return None
        begin, counted = self.clock(), 0
        batches = math.ceil(split.num_tokens / (self.settings.batch_size * self.settings.context))

        def count(tokens: int) -> None:
            nonlocal counted
            counted += tokens
            self.watcher.evaluating(counted, split.num_tokens - 1)

        def give_up(seconds: float = 0.0) -> bool:
            """A batch took so long. Whether the next does not fit any more; before the end, whether not all will."""
            seconds = seconds or self.time.expected_evaluation() / batches
            ahead = 1.0 if over else batches * (1.0 - counted / split.num_tokens)
            return self.ctrl_c.pressed or self.clock() + ahead * seconds > begin + allowed

        evaluation = evaluate_split(
            self.sum_nats, split, self.settings.context, self.settings.batch_size, on_batch=count, clock=self.clock,
            give_up=give_up,
        )  # fmt: skip
        if evaluation:
            self.watcher.evaluated(self.step, evaluation)
            samples = self.reports.sample(self.step, evaluation.loss, self.generate, give_up)
            self.watcher.sampled(self.step, samples)
        elif not self.ctrl_c.pressed:
            self.watcher.remark("A validation loss was given up for lack of time: nano-llama eval finds it.")
        self.evaluations.count(self.clock() - begin, (split.num_tokens - 1) / counted if counted else 1.0)
        self.time.reserve()
        return evaluation

    def slowdown(self) -> float:
        """How much longer things take here and now than on an idle machine."""
        return slowdown(self.clock() - self.start)

    # -- what is kept ---------------------------------------------------------------------------------------------

    def _write_line(self, facts: StepFacts, evaluation: Evaluation | None) -> None:
        row: Row = {
            "step": facts.step,
            "tokens": facts.tokens,
            "train_loss": facts.train_loss,
            "train_bits_per_byte": facts.bits_per_byte,
            "lr": facts.lr,
            "grad_norm": facts.grad_norm,
            "tokens_per_second": round(self.line.rate, 1),
            "mfu": self.mfu(self.line.rate),
            "data_stall": round(self.line.stall, 4),
            "checkpoint_pause_s": round(self.writer.paused, 3),
            "peak_memory_bytes": facts.peak_memory,
            "elapsed_s": round(self._elapsed(), 3),
            "seconds_left": round(facts.seconds_left, 1),
        }
        if evaluation:
            row |= {"val_loss": evaluation.loss, "val_bits_per_byte": evaluation.bits_per_byte}
        self.reports.line(row)
        self.loss_sum, self.loss_steps = 0.0, 0
        self.line = Meter()

    def _checkpoint_is_due(self) -> bool:
        if self.budget.deadline is not None and self.session.steps == 1:
            return True  # so that it is known how long saving takes
        return self.clock() - self.checkpointed >= 60.0 * self.settings.checkpoint_minutes

    def _save_checkpoint(self, evaluation: Evaluation | None = None) -> None:
        """Keep this moment, with the validation loss that was found at it."""
        state = {
            "tokens": self.tokens,
            "progress": self.budget.progress(self.step),
            "elapsed_s": self._elapsed(),
            "data_position": self.data_position,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "watchdog": self.watchdog.state(),
            "dataset": self.dataset.fingerprint,
            "val_loss": evaluation.loss if evaluation and math.isfinite(evaluation.loss) else None,
        }
        self.writer.save(self.step, self.config, self.weights(), self.tokenizer, self.training_tensors(), state)
        self.checkpointed = self.clock()

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        state = self.resumed_state = checkpoint.state
        self.step = self.resumed_at = state["step"]
        self.tokens, self.past_seconds = state["tokens"], state["elapsed_s"]
        self.past_progress = past_progress(self.settings, self.settings_before, state)
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.watchdog = Watchdog(**state["watchdog"])
        self.data_position = state["data_position"]
        self.batches.seek(self.data_position)
        self.restore(checkpoint.tensors)

    # -- what is said ---------------------------------------------------------------------------------------------

    def _elapsed(self) -> float:
        return self.past_seconds + self.clock() - self.start

    def _facts(self, train_loss: float) -> StepFacts:
        text, rate = self.dataset.train, self.session.rate
        return StepFacts(
            step=self.step, progress=self.budget.progress(self.step), tokens=self.tokens, train_loss=train_loss,
            bits_per_byte=bits_per_byte(train_loss, text.num_tokens, text.num_bytes), lr=self.lr,
            grad_norm=self.grad_norm, tokens_per_second=rate, mfu=self.mfu(rate), data_stall=self.session.stall,
            peak_memory=self.peak_memory(),
            seconds_left=self.budget.seconds_left(self.step, self.session.seconds_per_step),
        )  # fmt: skip
