"""Runs that end by the clock: within their minutes, with the schedule fitted in, and a validation loss at the end."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.training.metrics import read_metrics
from nano_llama.core.training.progress import Progress
from nano_llama.core.training.timekeeper import LEAVING_SECONDS


class Recorder(Progress):
    def __init__(self):
        self.remarks, self.rates = [], []

    def stepped(self, facts):
        self.rates.append(facts.lr)

    def remark(self, text):
        self.remarks.append(text)


def run(fake_trainer, settings, out, clock, minutes, *, seconds=0.1, evaluating=0.01, lost=0.0, **arguments):
    trainer_class = type("Paced", (fake_trainer,), {"seconds": seconds, "evaluating": evaluating})
    start = clock()
    clock.now += lost
    watcher = Recorder()
    settings = settings.replace(max_minutes=minutes)
    trainer = trainer_class(settings, out, clock=clock, start=start, progress=watcher, **arguments)
    return trainer.fit(), clock() - start, watcher


@pytest.mark.parametrize(("minutes", "seconds", "evaluating", "lost"), [
    (1.0, 0.1, 0.01, 0.0), (0.5, 0.1, 0.01, 10.0), (1.0, 4.0, 0.5, 5.0), (0.2, 0.01, 0.4, 0.0),
])  # fmt: skip
def test_it_ends_in_time_with_a_loss(fake_trainer, settings, tmp_path, hand_clock, minutes, seconds, evaluating, lost):
    result, took, _ = run(
        fake_trainer, settings, tmp_path / "run", hand_clock, minutes, seconds=seconds, evaluating=evaluating, lost=lost
    )
    assert took <= 60 * minutes - LEAVING_SECONDS
    assert took >= 60 * minutes - lost - max(10.0, 2 * seconds + 30 * evaluating), "and does not end much too early"
    assert result.evaluation is not None and read_metrics(tmp_path / "run/metrics.jsonl")[-1]["val_loss"]
    assert result.elapsed_s == pytest.approx(took)


def test_the_schedule_fits_itself_to_the_time(fake_trainer, settings, tmp_path, hand_clock):
    settings = settings.replace(warmup=0.1, final_lr=0.0, lr=1.0)
    for name, minutes, lost in (("long", 2.0, 0.0), ("late", 1.0, 30.0)):
        _, _, watcher = run(fake_trainer, settings, tmp_path / name, hand_clock, minutes, lost=lost)
        rates = watcher.rates
        assert max(rates) == pytest.approx(1.0, abs=0.02)
        assert rates.index(max(rates)) == pytest.approx(0.1 * len(rates), rel=0.2)
        assert rates[-1] < 0.01, "down at the end"


def test_a_resumed_run_takes_up_the_schedule_where_it_was(fake_trainer, settings, tmp_path, hand_clock):
    settings = settings.replace(warmup=0.0, lr=1.0, final_lr=0.0, max_minutes=1.0, evaluations=4)

    class Stop(Exception):
        pass

    trainer = fake_trainer(settings, tmp_path / "run", clock=hand_clock)
    step = trainer.train_step

    def train_step(batches, lr):
        if trainer.budget.progress(trainer.step) > 0.52:
            raise Stop
        return step(batches, lr)

    trainer.train_step = train_step
    with pytest.raises(Stop):
        trainer.fit()
    _, took, watcher = run(fake_trainer, settings, tmp_path / "run", hand_clock, 0.5, resume=True)
    assert took <= 30.0
    assert watcher.rates[0] == pytest.approx(0.5, abs=0.02), "half of a cosine is half of the peak"
    assert watcher.rates[-1] < 0.01


def test_evaluations_leave_most_of_the_time_to_training(fake_trainer, settings, tmp_path, hand_clock):
    settings = settings.replace(evaluations=50)
    result, _, _ = run(fake_trainer, settings, tmp_path / "run", hand_clock, 1.0, seconds=0.1, evaluating=0.25)
    rows = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "val_loss" in row]
    assert 2 <= len(rows) < 10 and result.steps > 350


def test_a_guess_that_it_takes_too_long_takes_no_time_from_training(fake_trainer, settings, tmp_path, hand_clock):
    # 25 s for a step: by that speed an evaluation would take half of the run; it is tried with what is left
    result, took, _ = run(fake_trainer, settings, tmp_path / "run", hand_clock, 2.0, seconds=25.0)
    assert 85 < took <= 120 and result.evaluation is not None


def test_a_loss_that_takes_too_long_is_given_up(fake_trainer, settings, tmp_path, hand_clock):
    result, took, watcher = run(fake_trainer, settings, tmp_path / "run", hand_clock, 0.2, evaluating=3.0)
    assert result.evaluation is None and took < 12.0 + 3.0, "at most one batch too late"
    assert [r for r in watcher.remarks if "given up" in r]


def test_no_time_at_all_is_an_error_that_says_so(fake_trainer, settings, tmp_path, hand_clock):
    with pytest.raises(UserError, match="No time is left for training"):
        run(fake_trainer, settings, tmp_path / "run", hand_clock, 0.1, lost=30.0)
    assert not (tmp_path / "run").exists(), "nothing was written"
