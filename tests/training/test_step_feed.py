"""What a device is given ahead, when, and how long a step then takes; on a clock that is set by hand."""

import json
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest

from helpers.training import FakeBackend, FakeTrainer, kill_after
from nano_llama.formats import open_weights
from nano_llama.training.callback import Callback
from nano_llama.training.metrics import MEASURED, read_metrics
from nano_llama.training.outcome import TrainingInterrupted
from nano_llama.training.step_feed import StepFeed


class AheadBackend(FakeBackend):
    """It computes by itself: time passes for `gradient` only until the device is done.

    events: what was asked of it, in order.
    """

    events: ClassVar[list[str]] = []

    def __init__(self, *parts):
        super().__init__(*parts)
        self.events.clear()
        self.begun, self.done_at = None, 0.0

    @property
    def ahead(self):
        return self

    def prefetch(self, batches):
        pass

    def begin(self, batches):
        assert self.begun is None, "one gradient at a time"
        self.begun, self.done_at = batches, (self.clock.now if self.clock else 0.0) + self.seconds
        self.events.append("begin")

    def gradient(self, batches):
        self.events.append("gradient")
        ahead, self.begun = self.begun, None
        if ahead is None:
            return super().gradient(batches)
        assert ahead is batches, "the gradient that was begun is the one that is asked for"
        self._pass(max(0.0, self.done_at - self.clock.now) if self.clock else 0.0)
        seconds, self.seconds = self.seconds, 0.0
        try:
            return super().gradient(batches)
        finally:
            self.seconds = seconds

    def update(self, lr):
        super().update(lr)
        self.events.append("update")

    def eval_loss_sum(self, tokens, targets):
        assert self.begun is None, "an evaluation has the device to itself"
        return super().eval_loss_sum(tokens, targets)


class Reporter(Callback):
    """Notes when a step is reported, which takes `seconds`."""

    def __init__(self, clock=None, seconds=0.0):
        self.clock, self.seconds = clock, seconds

    def stepped(self, record):
        AheadBackend.events.append("report")
        if self.clock:
            self.clock.now += self.seconds


def rows(folder, left_out=MEASURED):
    return [{k: v for k, v in row.items() if k not in left_out} for row in read_metrics(folder / "metrics.jsonl")]


def weights(folder):
    with open_weights(folder) as saved:
        return {name: np.array(saved[name]).tobytes() for name in saved}


class Numbers:
    """A stream of its own positions."""

    def __init__(self, clock=None, seconds=0.0):
        self.position, self.clock, self.seconds = 0, clock, seconds

    def next(self):
        self.position += 1
        if self.clock:
            self.clock.now += self.seconds
        return self.position - 1


def test_batches_in_order_whether_ahead_or_not(hand_clock):
    feed = StepFeed(Numbers(), 2, SimpleNamespace(ahead=None), hand_clock)
    feed.begin()
    assert feed.stream.position == 0, "this backend computes when it is asked"
    assert feed.next() == ([0, 1], 2)

    begun, fetched = [], []
    device = SimpleNamespace(begin=begun.append, prefetch=fetched.append)
    feed = StepFeed(Numbers(), 2, SimpleNamespace(ahead=device), hand_clock)
    assert feed.next() == ([0, 1], 2)
    feed.ended()
    feed.begin()
    assert begun == [[2, 3]] and fetched == [[4, 5]], "the batches behind it are drawn meanwhile"
    assert feed.next() == ([2, 3], 4) and feed.next() == ([4, 5], 6), "the first were bad"
    feed.ended()
    feed.begin()
    assert begun == [[2, 3], [6, 7]] and fetched == [[4, 5], [8, 9]]


def test_the_next_gradient_begins_before_the_last_step_is_reported(settings, tmp_path, hand_clock):
    callback = Reporter()
    FakeTrainer(settings.replace(max_steps=4), tmp_path / "run", engine=AheadBackend, clock=hand_clock,
                progress=callback).fit()  # fmt: skip
    step = ["update", "begin", "report", "gradient"]
    assert AheadBackend.events == ["gradient", *step * 3, "update", "report"], "and none after the last"


def test_nothing_but_the_time_differs(settings, tmp_path, hand_clock):
    settings = settings.replace(evaluations=3, checkpoint_minutes=0.0, accumulate=2, max_steps=7, log_every=1)
    FakeTrainer(settings, tmp_path / "run", clock=hand_clock).fit()
    FakeTrainer(settings, tmp_path / "ahead", clock=hand_clock, engine=AheadBackend).fit()
    kill_after(FakeTrainer(settings, tmp_path / "killed", clock=hand_clock, engine=AheadBackend), 4)
    FakeTrainer(settings, tmp_path / "killed", clock=hand_clock, engine=AheadBackend, resume=True).fit()
    for name in ("ahead", "killed"):
        assert rows(tmp_path / name) == rows(tmp_path / "run") and weights(tmp_path / name) == weights(tmp_path / "run")
        states = [json.loads(path.read_text()) for path in sorted((tmp_path / name).rglob("state.json"))]
        assert states and all(state["data_position"] == 2 * state["step"] for state in states)


@pytest.mark.parametrize(
    ("reporting", "drawing", "seconds", "stall"),
    [(0.03, 0.02, 0.1, 0.0), (0.03, 0.15, 0.18, 0.15 / 0.18), (0.2, 0.0, 0.2, 0.0), (0.0, 0.08, 0.1, 0.06 / 0.1)],
    ids=["hidden", "slow data", "slow report", "at most what was drawn"],
)
def test_a_step_takes_as_long_as_the_slower_of_host_and_device(
    settings, tmp_path, hand_clock, reporting, drawing, seconds, stall
):
    settings = settings.replace(max_steps=30, evaluations=0, log_every=10)
    trainer = FakeTrainer(settings, tmp_path / "run", engine=AheadBackend, clock=hand_clock,
                          progress=Reporter(hand_clock, reporting))  # fmt: skip
    draw = trainer.batches.next

    def slow():
        hand_clock.now += drawing
        return draw()

    trainer.batches.next = slow
    begin = hand_clock.now
    trainer.fit()
    row = read_metrics(tmp_path / "run/metrics.jsonl")[-1]
    assert 64 / row["tokens_per_second"] == pytest.approx(seconds, abs=1e-3)
    assert row["data_stall"] == pytest.approx(stall, abs=1e-3)
    assert hand_clock.now - begin == pytest.approx(30 * seconds, rel=0.1)


def test_a_run_by_the_clock_is_not_longer_for_what_is_ahead(settings, tmp_path, hand_clock):
    settings = settings.replace(max_minutes=0.5, evaluations=3)
    begin = hand_clock.now
    FakeTrainer(settings, tmp_path / "run", engine=AheadBackend, clock=hand_clock, changes={"seconds": 0.4}).fit()
    assert AheadBackend.events[-2:] == ["gradient", "update"], "the last that was begun was used"
    assert 10.0 < hand_clock.now - begin <= 30.0  # saving takes real time, for which more or less is kept


def test_ctrl_c_ends_the_step_that_has_begun(settings, tmp_path, hand_clock):
    class Pressing(Reporter):
        def stepped(self, record):
            if record.step == 3:
                trainer.interrupt.signal = 2

    trainer = FakeTrainer(settings, tmp_path / "run", engine=AheadBackend, clock=hand_clock, progress=Pressing())
    with pytest.raises(TrainingInterrupted):
        trainer.fit()
    assert trainer.state.step == 4 and trainer.state.data_position == 4
    FakeTrainer(settings, tmp_path / "run", engine=AheadBackend, clock=hand_clock, resume=True).fit()
    FakeTrainer(settings, tmp_path / "whole", clock=hand_clock).fit()
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
