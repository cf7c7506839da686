"""The training loop, once for every engine: batches in, updates, and everything that is reported and kept.

A volume derives its Trainer from `TrainingLoop` and brings six methods: build, restore, train_step, sum_nats, weights,
training_tensors. Everything else (budget, schedule, evaluation, checkpoints, metrics, Ctrl-C) is here, so that two
engines differ in nothing but their arithmetic. Not here: any tensor. Tests: tests/core/training/test_loop.py.
"""

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.data.batches import Batches
from nano_llama.core.data.dataset import Dataset
from nano_llama.core.errors import FormatError, NanoLlamaError, UserError
from nano_llama.core.training.budget import Budget, Clock, slowdown
from nano_llama.core.training.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)
from nano_llama.core.training.evaluation import Evaluation, bits_per_byte, evaluate_split
from nano_llama.core.training.interrupt import CtrlC
from nano_llama.core.training.memory import peak_resident_bytes
from nano_llama.core.training.metrics import MetricsWriter, Row, read_metrics
from nano_llama.core.training.outcome import TrainingDiverged, TrainingInterrupted, TrainingResult
from nano_llama.core.training.pace import EvaluationPlan, Meter
from nano_llama.core.training.plots import plot_run
from nano_llama.core.training.progress import Progress, RunFacts, StepFacts
from nano_llama.core.training.run_folder import RunFolder
from nano_llama.core.training.schedule import warmup_cosine
from nano_llama.core.training.settings import TrainSettings
from nano_llama.core.training.start import prepare_dataset, starting_point

Batch = tuple[np.ndarray, np.ndarray]  # tokens (B,T), targets (B,T)


class StepResult(NamedTuple):
    """What an update found. Either may be not-a-number or infinite; the weights are then as before."""

    loss: float  # nats a token, mean over the counted targets
    grad_norm: float  # length of the whole gradient, before it is clipped


# What the loop itself keeps in a checkpoint.
STATE = ("tokens", "progress", "elapsed_s", "data_position", "loss_sum", "loss_steps", "dataset")

# What the end of a run takes on an idle machine, generously.
LEAVING_SECONDS = 1.5  # from the end of `fit` to the end of the process
PLOTTING_SECONDS = 1.5  # the first picture imports matplotlib
SAVING_SECONDS = 0.3  # of a small model; measured from the first checkpoint on
PLOT_EVERY_SECONDS = 60.0
EVALUATING_SHARE = 0.15  # of a run by the clock, at most, may go into evaluations before the last


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
        if resume:
            settings = self.folder.resumed_settings(settings.to_json())
        else:
            self.folder.check_new()
        self.settings = settings
        self.check_settings()
        self.dataset = dataset or prepare_dataset(settings, self.folder.path if resume else None, self.watcher)
        self.tokenizer = self.dataset.tokenizer
        checkpoint = self._newest_checkpoint() if resume else None
        self.config: LlamaConfig
        self.config, first_weights = starting_point(settings, self.dataset, checkpoint)
        self.build(self.config, first_weights)

        self.batches = Batches(self.dataset.train, settings.batch_size, settings.context, settings.seed)
        self.step = self.tokens = 0
        self.loss_sum, self.loss_steps = 0.0, 0  # since the last line of metrics.jsonl
        self.past_progress = self.past_seconds = 0.0  # of the sessions before this one
        self.resumed_at: int | None = 0 if resume else None
        if checkpoint:
            self._go_on_from(checkpoint)
        self.session, self.line = Meter(), Meter()  # of training in this process, and since the last line
        self.lr = self.grad_norm = math.nan  # of the last step
        self.evaluations = EvaluationPlan(settings.evaluations, self.past_progress)
        self.saving_seconds = SAVING_SECONDS  # of the last checkpoint
        self.metrics: MetricsWriter
        self.budget: Budget
        self.ctrl_c: CtrlC

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
    def train_step(self, batches: Sequence[Batch], lr: float) -> StepResult:
        """One update from the mean gradient over all counted targets of `batches`.

        When the loss or the gradient is not finite there is no update.
        """

    @abstractmethod
    def sum_nats(self, tokens: np.ndarray, targets: np.ndarray) -> float:
        """The loss summed over the counted targets, without a gradient."""

    @abstractmethod
    def weights(self) -> Mapping[str, np.ndarray]:
        """The parameters by their names."""

    @abstractmethod
    def training_tensors(self) -> Mapping[str, np.ndarray]:
        """All else that the next update depends on: the optimizer's memory, the states of random generators."""

    def warm_up(self, batch: Batch) -> None:  # noqa: B027 (most engines need none)
        """What must happen once before steps take their usual time (compiling). The run's state stays as it is."""

    def mfu(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilization at this speed: useful FLOP/s over the device's own measured ones; None: not known."""
        return None

    def peak_memory(self) -> int:
        """Bytes that the run took at most so far, where its model lies."""
        return peak_resident_bytes()

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
        if self.budget.progress(self.step) >= 1.0:
            raise self._nothing_left()
        self.folder.create(settings, self.config, self.tokenizer)
        prune_checkpoints(self.folder.checkpoints, settings.keep_checkpoints)
        self.metrics = MetricsWriter(self.folder.metrics, keep_to=self.resumed_at)
        try:
            with self.computing(), CtrlC() as self.ctrl_c:
                return self._run()
        finally:
            self.metrics.close()
            self.watcher.ended()

    def _run(self) -> TrainingResult:
        self.watcher.started(
            RunFacts(
                settings=self.settings, config=self.config, out=self.folder.path, device=self.device,
                train_tokens=self.dataset.train.num_tokens, val_tokens=self.dataset.val.num_tokens,
                resumed_at=self.resumed_at,
            )
        )  # fmt: skip
        if self.settings.evaluations and self.dataset.val.num_tokens < 2:
            self.watcher.remark("There is no validation text, so there will be no validation loss.")
        self.warm_up(self._first_batch())
        self.checkpointed = self.plotted = self.clock()
        self.budget.start_training()
        over, evaluation, train_loss = False, None, math.nan
        while not over:
            self._update()
            over = self._is_over()
            evaluation = self._evaluate(over)
            over = over or self._is_over()  # evaluating takes time
            train_loss = self.loss_sum / self.loss_steps
            facts = self._facts(train_loss)
            self.watcher.stepped(facts)
            if over or evaluation or self.step == 1 or self.step % self.settings.log_every == 0:
                self._write_line(facts, evaluation)
            if over:
                self.folder.save_model(self.config, self.weights(), self.tokenizer)
            if over or (evaluation and self.clock() - self.plotted >= PLOT_EVERY_SECONDS):
                self._plot()
            if over or evaluation or self._checkpoint_is_due():
                self._save_checkpoint()  # last: once it says that the run has ended, all else is there
        if self.ctrl_c.pressed:
            raise self._interrupted()
        return TrainingResult(
            out=self.folder.path, steps=self.step, tokens=self.tokens, train_loss=train_loss, evaluation=evaluation,
            tokens_per_second=self.session.rate, elapsed_s=self._elapsed(),
        )  # fmt: skip

    def _first_batch(self) -> Batch:
        """What the next step will learn from; drawn without moving on."""
        position = self.batches.position
        batch = next(self.batches)
        self.batches.seek(position)
        return batch

    def _is_over(self) -> bool:
        return self.ctrl_c.pressed or self.budget.progress(self.step) >= 1.0

    def _update(self) -> None:
        """One step."""
        settings, begin = self.settings, self.clock()
        lr = warmup_cosine(self.budget.midway(self.step), settings.lr, settings.warmup, settings.final_lr)
        batches = [next(self.batches) for _ in range(settings.accumulate)]
        waited = self.clock() - begin
        loss, self.grad_norm = self.train_step(batches, lr)
        self.lr = lr
        if not math.isfinite(loss) or not math.isfinite(self.grad_norm):
            raise self._diverged(lr)
        seconds = self.clock() - begin
        self.step += 1
        self.tokens += settings.tokens_per_step
        self.loss_sum, self.loss_steps = self.loss_sum + loss, self.loss_steps + 1
        for meter in (self.session, self.line):
            meter.add(settings.tokens_per_step, seconds, waited)
        self.budget.count_step(seconds)
        self._keep_time_for_the_end()

    # -- evaluation -----------------------------------------------------------------------------------------------

    def _evaluate(self, over: bool) -> Evaluation | None:
        """The validation loss, when it is due and there is time for it."""
        if self.ctrl_c.pressed or not self.evaluations.due(self.budget.progress(self.step), over):
            return None
        split = self.dataset.val
        if split.num_tokens < 2:
            return None
        if not self._time_for_evaluation(over):
            if over:
                self.watcher.remark("No time is left for a validation loss: nano-llama eval finds it.")
            return None
        counted = 0

        def count(tokens: int) -> None:
            nonlocal counted
            counted += tokens
            self.watcher.evaluating(counted, split.num_tokens - 1)

        evaluation = evaluate_split(
            self.sum_nats, split, self.settings.context, self.settings.batch_size, on_batch=count, clock=self.clock,
            give_up=lambda: self.ctrl_c.pressed or self._seconds_until_leaving() < 0,
        )  # fmt: skip
        if evaluation:
            self.evaluations.count(evaluation.seconds)
            self._keep_time_for_the_end()
            self.watcher.evaluated(self.step, evaluation)
        elif not self.ctrl_c.pressed:
            self.watcher.remark("A validation loss was given up for lack of time: nano-llama eval finds it.")
        return evaluation

    def _time_for_evaluation(self, over: bool) -> bool:
        """At the end it is always tried, for it can be given up; before, only where enough is left for training."""
        seconds, left = self._evaluation_seconds(), self._seconds_until_leaving()
        if over or not self.budget.seconds:
            return left > 0
        return seconds < left and self.evaluations.spent + seconds < EVALUATING_SHARE * self.budget.seconds

    def _evaluation_seconds(self) -> float:
        """How long the next evaluation takes: as the last one, or guessed from the speed of training."""
        if self.evaluations.last_seconds:
            return self.evaluations.last_seconds
        return 0.5 * self.dataset.val.num_tokens / self.session.rate  # a forward pass is a third of a training step

    def _keep_time_for_the_end(self) -> None:
        """Reserve what evaluating, saving and leaving take. An evaluation as long as half of the run is left out."""
        evaluating = 1.25 * self._evaluation_seconds() if self.settings.evaluations else 0.0
        if self.budget.seconds and evaluating > 0.5 * self.budget.seconds:
            evaluating = 0.0
        self.budget.keep(evaluating + self._ending_seconds())

    def _seconds_until_leaving(self) -> float:
        """What is left before only saving, drawing and leaving fit in."""
        if self.budget.deadline is None:
            return math.inf
        return self.budget.deadline - self.clock() - self._ending_seconds()

    def _ending_seconds(self) -> float:
        """How long saving (a checkpoint and the model), drawing and leaving take."""
        return 2.0 * self.saving_seconds + (PLOTTING_SECONDS + LEAVING_SECONDS) * self.slowdown()

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
            "peak_memory_bytes": facts.peak_memory,
            "elapsed_s": round(self._elapsed(), 3),
            "seconds_left": round(facts.seconds_left, 1),
        }
        if evaluation:
            row |= {"val_loss": evaluation.loss, "val_bits_per_byte": evaluation.bits_per_byte}
        self.metrics.write(row)
        self.loss_sum, self.loss_steps = 0.0, 0
        self.line = Meter()

    def _checkpoint_is_due(self) -> bool:
        return self.clock() - self.checkpointed >= 60.0 * self.settings.checkpoint_minutes

    def _save_checkpoint(self) -> None:
        begin = self.clock()
        state = {
            "tokens": self.tokens,
            "progress": self.budget.progress(self.step),
            "elapsed_s": self._elapsed(),
            "data_position": self.batches.position,
            "loss_sum": self.loss_sum,
            "loss_steps": self.loss_steps,
            "dataset": self.dataset.fingerprint,
        }
        save_checkpoint(
            self.folder.checkpoints, self.step, self.config, self.weights(), self.tokenizer,
            self.training_tensors(), state,
        )  # fmt: skip
        prune_checkpoints(self.folder.checkpoints, self.settings.keep_checkpoints)
        self.checkpointed = self.clock()
        self.saving_seconds = self.checkpointed - begin

    def _newest_checkpoint(self) -> Checkpoint | None:
        """The checkpoint to go on from; of a damaged one the one before is taken, said aloud."""
        damage: NanoLlamaError | None = None
        for path in reversed(list_checkpoints(self.folder.checkpoints)):
            try:
                checkpoint = load_checkpoint(path, needs=STATE)
            except FormatError as error:
                self.watcher.remark(f"{path.name} is damaged ({error.message}); the checkpoint before it is taken.")
                damage = error
            else:
                return checkpoint
        if damage:
            raise damage
        self.watcher.remark("No checkpoint was kept yet: the run begins again from its first step.")
        return None

    def _go_on_from(self, checkpoint: Checkpoint) -> None:
        state = checkpoint.state
        self.step = self.resumed_at = state["step"]
        self.tokens, self.past_progress, self.past_seconds = state["tokens"], state["progress"], state["elapsed_s"]
        if self.settings.max_steps is not None:
            self.past_progress = self.step / self.settings.max_steps  # max_steps may have been changed
        self.loss_sum, self.loss_steps = state["loss_sum"], state["loss_steps"]
        self.batches.seek(state["data_position"])
        self.restore(checkpoint.tensors)

    def _plot(self) -> None:
        title = f"{self.settings.data}: {self.config.num_parameters:,} parameters"
        plot_run(read_metrics(self.folder.metrics), self.folder.plot, title)
        self.plotted = self.clock()

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

    def _nothing_left(self) -> UserError:
        if self.past_progress >= 1.0:
            return UserError(
                f"The run in {self.folder.path} has ended: {self.step:,} steps are done.",
                hint=f"Give it a larger --max-steps, or begin a new run with  --init-from {self.folder.path}",
            )
        return UserError(
            f"No time is left for training: {self.settings.max_minutes:g} minutes were over after"
            f" {self._elapsed():.0f} s of reading data and building the model.",
            hint="Try the same command again (the data is ready now), or give a larger --max-minutes.",
        )

    def _interrupted(self) -> TrainingInterrupted:
        return TrainingInterrupted(
            f"Stopped by Ctrl-C after {self.step:,} steps; all is kept in {self.folder.path}.",
            hint=f"Go on with:  nano-llama train --out {self.folder.path} --resume",
        )

    def _diverged(self, lr: float) -> TrainingDiverged:
        kept = list_checkpoints(self.folder.checkpoints)
        where = f" The last good weights are in {kept[-1]}." if kept else ""
        return TrainingDiverged(
            f"The loss or its gradient is no longer a number at step {self.step + 1:,}"
            f" (learning rate {lr:.3g}).{where}",
            hint=f"Try a smaller learning rate, for example  --lr {self.settings.lr / 3:.1g}",
        )
