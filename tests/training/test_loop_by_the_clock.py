"""Runs that end by the clock: within their minutes, with the schedule fitted in, and a validation loss at the end."""

import math
import random

import pytest

from helpers.training import FakeBackend, FakeTrainer
from nano_llama.core.errors import UserError
from nano_llama.training import recorder, setup
from nano_llama.training.backend import HostDevice
from nano_llama.training.callback import Callback
from nano_llama.training.checkpoint_writer import CheckpointWriter
from nano_llama.training.end_reserve import EXIT_SECONDS
from nano_llama.training.metrics import read_metrics


class Recorder(Callback):
    def __init__(self):
        self.notices, self.rates = [], []

    def stepped(self, record):
        self.rates.append(record.lr)

    def notice(self, text):
        self.notices.append(text)


def run(settings, out, clock, minutes, *, seconds=0.1, evaluating=0.01, lost=0.0, **arguments):
    start = clock()
    clock.now += lost
    callback = Recorder()
    settings = settings.replace(max_minutes=minutes)
    changes = {"seconds": seconds, "evaluating": evaluating}
    trainer = FakeTrainer(settings, out, clock=clock, start=start, progress=callback, changes=changes, **arguments)
    return trainer.fit(), clock() - start, callback


@pytest.mark.parametrize(("minutes", "seconds", "evaluating", "lost"), [
    (1.0, 0.1, 0.01, 0.0), (0.5, 0.1, 0.01, 10.0), (1.0, 4.0, 0.5, 5.0), (0.2, 0.01, 0.4, 0.0),
])  # fmt: skip
def test_it_ends_in_time_with_a_loss(settings, tmp_path, hand_clock, minutes, seconds, evaluating, lost):
    result, took, _ = run(
        settings, tmp_path / "run", hand_clock, minutes, seconds=seconds, evaluating=evaluating, lost=lost
    )
    assert took <= 60 * minutes - EXIT_SECONDS
    assert took >= 60 * minutes - lost - max(10.0, 2 * seconds + 30 * evaluating), "and does not end much too early"
    assert result.evaluation is not None and read_metrics(tmp_path / "run/metrics.jsonl")[-1]["val_loss"]
    assert result.elapsed_s == pytest.approx(took)


def test_the_schedule_fits_itself_to_the_time(settings, tmp_path, hand_clock):
    settings = settings.replace(warmup=0.1, final_lr=0.0, lr=1.0)
    for name, minutes, lost in (("long", 2.0, 0.0), ("late", 1.0, 30.0)):
        _, _, callback = run(settings, tmp_path / name, hand_clock, minutes, lost=lost)
        rates = callback.rates
        assert max(rates) == pytest.approx(1.0, abs=0.02)
        assert rates.index(max(rates)) == pytest.approx(0.1 * len(rates), rel=0.2)
        assert rates[-1] < 0.01, "down at the end"


def test_a_resumed_run_takes_up_the_schedule_where_it_was(settings, tmp_path, hand_clock):
    settings = settings.replace(warmup=0.0, lr=1.0, final_lr=0.0, max_minutes=1.0, evaluations=4)

    class Stop(Exception):
        pass

    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    step = trainer.train_step

    def train_step(batches, lr):
        if trainer.clock.progress(trainer.state.step) > 0.52:
            raise Stop
        return step(batches, lr)

    trainer.train_step = train_step
    with pytest.raises(Stop):
        trainer.fit()
    _, took, callback = run(settings, tmp_path / "run", hand_clock, 0.5, resume=True)
    assert took <= 30.0
    assert callback.rates[0] == pytest.approx(0.5, abs=0.02), "half of a cosine is half of the peak"
    assert callback.rates[-1] < 0.01


def test_a_run_that_has_ended_goes_on_with_more_minutes(settings, tmp_path, hand_clock):
    settings = settings.replace(warmup=0.0, lr=1.0, final_lr=0.0, schedule="linear")
    first, took, _ = run(settings, tmp_path / "run", hand_clock, 0.5)
    with pytest.raises(UserError, match="has ended") as caught:
        run(settings, tmp_path / "run", hand_clock, 0.5, resume=True)
    assert "--max-minutes 1" in caught.value.hint
    second, more, callback = run(settings, tmp_path / "run", hand_clock, 1.0, resume=True)
    assert more <= 60.0 and second.steps > 2 * first.steps
    assert callback.rates[0] == pytest.approx(1.0 - took / (took + 60.0), abs=0.02), "on the line of both together"
    assert callback.rates[-1] < 0.01


def test_evaluations_leave_most_of_the_time_to_training(settings, tmp_path, hand_clock):
    settings = settings.replace(evaluations=50)
    result, _, _ = run(settings, tmp_path / "run", hand_clock, 1.0, seconds=0.1, evaluating=0.25)
    rows = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "val_loss" in row]
    assert 2 <= len(rows) < 10 and result.steps > 350


def test_an_evaluation_expected_to_take_half_of_the_run_takes_little_time_from_training(settings, tmp_path, hand_clock):
    result, took, _ = run(settings, tmp_path / "run", hand_clock, 2.0, seconds=12.0)
    assert 95 < took <= 120 and not result.evaluation.partial, "it was faster than expected"


def test_what_does_not_fit_is_evaluated_on_the_head_of_the_split(settings, tmp_path, hand_clock):
    result, took, callback = run(settings, tmp_path / "run", hand_clock, 0.4, evaluating=3.0)
    assert result.evaluation.partial and 0 < result.evaluation.tokens < 600 and took <= 24.0
    assert [text for text in callback.notices if f"first {result.evaluation.tokens} of" in text]
    last = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    assert last["val_partial"] is True and last["val_loss"] == result.evaluation.loss
    assert last["val_bits_per_byte"] == pytest.approx(result.evaluation.loss / math.log(2), rel=0.02)  # a byte a token


def test_a_slow_first_step_does_not_end_the_run_early(settings, tmp_path, hand_clock):
    """27 s of compiling in the first step, then 0.1 s each: the last evaluation's time follows the later ones."""
    trainer = FakeTrainer(settings.replace(max_minutes=2.0, warmup=0.05), tmp_path / "run", clock=hand_clock)
    step = trainer.train_step

    def train_step(batches, lr):
        hand_clock.now += 27.0 if trainer.state.step == 0 else 0.1
        return step(batches, lr)

    trainer.train_step = train_step
    begin = hand_clock()
    result = trainer.fit()
    assert 0.93 * 120 < hand_clock() - begin + EXIT_SECONDS <= 120 and not result.evaluation.partial


@pytest.mark.parametrize("first", [0.01, 8.0])
def test_the_warmup_counts_steps_too(settings, tmp_path, hand_clock, first):
    """Neither a first step that outlasts the warmup nor one far shorter starts at the peak or at nothing."""
    settings = settings.replace(lr=1.0, warmup=0.05, max_minutes=1.0, schedule="constant")
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    step, rates = trainer.train_step, []

    def train_step(batches, lr):
        rates.append(lr)
        hand_clock.now += first if trainer.state.step == 0 else 0.05
        return step(batches, lr)

    trainer.train_step = train_step
    trainer.fit()
    assert rates[0] == pytest.approx(0.1) and max(rates[:9]) < 1.0 and rates[-1] == 1.0
    assert all(0.1 <= rate <= (i + 1) / 10 + 1e-12 for i, rate in enumerate(rates[:10]))


def test_the_peak_is_never_below_what_training_reaches(settings, tmp_path, hand_clock):
    """Measured beside busy neighbours, a peak was a thousandth of the machine's: MFU came out at 3.4."""

    class Disturbed(HostDevice):
        def peak_flops(self):
            return 1e-3 * settings.tokens_per_step * trainer.expected.flops_per_token

    trainer = FakeTrainer(
        settings.replace(max_steps=30), tmp_path / "run", clock=hand_clock, changes={"device": Disturbed()}
    )
    step = trainer.train_step

    def train_step(batches, lr):
        hand_clock.now += 0.1
        return step(batches, lr)

    trainer.train_step = train_step
    trainer.fit()
    found = [row["mfu"] for row in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert found and max(found) <= 1.0 and max(found) > 0.9


@pytest.mark.parametrize(("minutes", "seconds"), [(1.0, 0.5), (1.0, 13.0), (2.0, 13.0)])
@pytest.mark.parametrize("evaluating", [0.02, 4.0])
@pytest.mark.parametrize("saving", [0.1, 4.0])
def test_slow_steps_evaluations_and_disks(slow_trainer, settings, tmp_path, minutes, seconds, evaluating, saving):
    """The next step, the evaluation's next batch, and saving are foreseen: nothing is begun that does not fit."""
    trainer = slow_trainer(settings.replace(max_minutes=minutes), tmp_path / "run", seconds, evaluating, saving)
    result = trainer.fit()
    assert result.elapsed_s <= 60 * minutes - EXIT_SECONDS
    assert result.steps >= 2 and (tmp_path / "run/model.safetensors").exists()
    if evaluating < 1.0:
        assert result.evaluation is not None, "one that fits is made"


@pytest.fixture
def slow_trainer(hand_clock, monkeypatch):
    """A trainer whose steps differ by a quarter, and whose disk takes its time: all of it by the clock set by hand."""
    monkeypatch.setattr(recorder, "plot_run", lambda *arguments: None)
    monkeypatch.setattr(setup, "CheckpointWriter", SlowWriter)

    def make(settings, out, seconds, evaluating, saving):
        rng = random.Random(5)

        class Slow(FakeBackend):
            def gradient(self, batches):
                self.seconds = seconds * rng.uniform(0.87, 1.13)
                return super().gradient(batches)

        trainer = FakeTrainer(settings, out, engine=Slow, changes={"evaluating": evaluating}, clock=hand_clock)
        writer = trainer.checkpoints.writer
        writer.clock, writer.takes = hand_clock, saving
        put = trainer.model.put

        def slow_put(folder, weights):
            hand_clock.now += saving if folder == out else 0.0  # a checkpoint's time is the writer's
            put(folder, weights)

        trainer.model.put = slow_put
        return trainer

    return make


class SlowWriter(CheckpointWriter):
    """Writes beside the training, `takes` seconds by a clock set by hand."""

    clock, takes, done_at = None, 0.0, -math.inf

    def save(self, *arguments):
        super().save(*arguments)
        super().wait()
        self.done_at = self.clock.now + self.takes

    def wait(self):
        super().wait()
        if self.clock:
            self.clock.now = max(self.clock.now, self.done_at)

    @property
    def busy(self):
        return self.clock.now < self.done_at

    @property
    def seconds(self):
        return self.takes if math.isfinite(self.done_at) and not self.busy else None

    @seconds.setter
    def seconds(self, value):
        pass  # the real time


def test_no_time_at_all_is_an_error_that_says_so(settings, tmp_path, hand_clock):
    with pytest.raises(UserError, match="No time is left for training"):
        run(settings, tmp_path / "run", hand_clock, 0.1, lost=30.0)
    assert not (tmp_path / "run").exists(), "nothing was written"
