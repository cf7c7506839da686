"""What counts as a spike, what is then done, and that the batch is kept for the eye."""

import json
import math

import numpy as np
import pytest

from helpers.training import FakeTrainer
from nano_llama.training.backend import StepResult
from nano_llama.training.bad_batches import MOST_SAVED, first_loss_notice, save_batches
from nano_llama.training.callback import Callback
from nano_llama.training.metrics import read_metrics
from nano_llama.training.outcome import TrainingDiverged
from nano_llama.training.watchdog import MIN_LOSSES, MOST_IN_A_ROW, Watchdog


class Ears(Callback):
    def __init__(self):
        self.heard = []

    def notice(self, text):
        self.heard.append(text)


def taught(losses):
    dog = Watchdog()
    for loss in losses:
        dog.learn(loss)
    return dog


def test_the_running_mean_begins_as_the_plain_one():
    losses = np.random.default_rng(0).normal(3.0, 0.2, 40)
    dog = taught(losses)
    assert dog.mean == pytest.approx(losses.mean()) and dog.variance == pytest.approx(losses.var())


def test_a_spike_stands_out_of_the_noise():
    losses = np.random.default_rng(0).normal(3.0, 0.2, 200)
    dog = taught(losses)
    assert not any(dog.check(StepResult(loss=loss, grad_norm=1.0)) for loss in losses)
    assert dog.check(StepResult(loss=4.8, grad_norm=1.0)) == "spike"
    assert dog.check(StepResult(loss=0.1, grad_norm=1.0)) == "", "too good is not wrong"
    assert taught([3.0] * 200).check(StepResult(loss=3.4, grad_norm=1.0)) == "", "under half a nat is none"
    assert taught(losses[: MIN_LOSSES - 1]).check(StepResult(loss=9.0, grad_norm=1.0)) == "", "too early to tell"
    for loss, norm in ((math.nan, 1.0), (3.0, math.inf), (math.inf, 1.0)):
        assert Watchdog().check(StepResult(loss=loss, grad_norm=norm)) == "nan"


def test_a_new_level_is_learned_slowly():
    dog = taught([3.0] * 100)
    spikes = 0
    for _ in range(500):
        spikes += dog.check(StepResult(loss=6.0, grad_norm=1.0)) == "spike"
        dog.learn(6.0)
    assert 3 < spikes < 300 and dog.mean == pytest.approx(6.0, abs=0.1)


def spoiled(settings, out, at, loss, clock):
    """A run whose loss at some draws of data is `loss`."""
    ears = Ears()
    trainer = FakeTrainer(settings, out, clock=clock, progress=ears)
    good = trainer.backend.gradient

    def gradient(batches):
        found = good(batches)
        return StepResult(loss=loss, grad_norm=1.0) if trainer.batches.position in at else found

    trainer.backend.gradient = gradient
    return trainer, ears


def test_nan_is_skipped_as_asked_and_the_steps_are_all_made(settings, tmp_path, hand_clock):
    settings = settings.replace(on_nan="skip")
    trainer, ears = spoiled(settings, tmp_path / "run", (3, 7), math.nan, hand_clock)
    assert trainer.fit().steps == 20
    assert trainer.state.watchdog.skipped == 2 and trainer.batches.position == 22
    kept = tmp_path / "run/bad_batches/step-00000003.npz"
    with np.load(kept) as saved:
        assert saved["tokens"].shape == saved["targets"].shape == (1, 4, 16)
        text = trainer.tokenizer.decode(saved["tokens"][0, 0].tolist())
    assert json.loads(kept.with_suffix(".json").read_text())["texts"][0] == text
    told = next(text for text in ears.heard if str(kept) in text)
    assert "skipped" in told
    assert all(math.isfinite(row["train_loss"]) for row in read_metrics(tmp_path / "run/metrics.jsonl"))


def test_it_is_not_the_batch_when_all_are_bad(settings, tmp_path, hand_clock):
    settings = settings.replace(on_nan="skip")
    trainer, _ = spoiled(settings, tmp_path / "run", range(5, 99), math.nan, hand_clock)
    with pytest.raises(TrainingDiverged, match="step 5"):
        trainer.fit()
    assert trainer.state.watchdog.in_a_row == MOST_IN_A_ROW


@pytest.mark.parametrize("wish", ["report", "skip", "stop"])
def test_a_spike_is_treated_as_asked(settings, tmp_path, hand_clock, wish):
    settings = settings.replace(on_spike=wish, max_steps=100)
    trainer, ears = spoiled(settings, tmp_path / "run", (80,), 30.0, hand_clock)
    if wish == "stop":
        with pytest.raises(TrainingDiverged, match=r"jumped to 30 at step 80.*bad_batches"):
            trainer.fit()
    else:
        trainer.fit()
        assert trainer.batches.position == (101 if wish == "skip" else 100)
        assert any("Step 80: loss 30" in text for text in ears.heard)


def test_what_was_skipped_is_remembered_by_a_run_that_goes_on(settings, tmp_path, hand_clock):
    settings = settings.replace(on_nan="skip", checkpoint_minutes=0.0, evaluations=0)

    class Killed(BaseException):
        pass

    whole, _ = spoiled(settings, tmp_path / "whole", (3, 12), math.nan, hand_clock)
    whole.fit()
    halves, _ = spoiled(settings, tmp_path / "run", (3, 12), math.nan, hand_clock)
    update = halves.backend.update

    def kill(lr):
        if halves.state.step == 9:
            raise Killed
        update(lr)

    halves.backend.update = kill
    with pytest.raises(Killed):
        halves.fit()
    ears = Ears()
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock, resume=True, progress=ears)
    assert trainer.state.watchdog.count == 9 and trainer.state.watchdog.skipped == 1 and trainer.batches.position == 10
    good = trainer.backend.gradient
    trainer.backend.gradient = lambda batches: (
        StepResult(loss=math.nan, grad_norm=1.0) if (g := good(batches)) and trainer.batches.position == 12 else g
    )
    trainer.fit()
    assert trainer.state.watchdog == whole.state.watchdog
    ours, theirs = trainer.backend.params, whole.backend.params
    assert all(np.array_equal(ours[name], theirs[name]) for name in theirs)


def test_only_so_many_batches_are_kept(tmp_path):
    batch = [(np.zeros((1, 2), np.int64), np.zeros((1, 2), np.int64))]
    result = StepResult(loss=math.nan, grad_norm=1.0)
    kept = [save_batches(tmp_path / "bad", step, "nan", result, batch, ["ab"]) for step in range(MOST_SAVED + 2)]
    assert all(kept[:MOST_SAVED]) and kept[MOST_SAVED:] == [None, None]


def test_the_first_loss_of_a_fresh_model_is_that_of_a_guess():
    assert first_loss_notice(math.log(65) + 0.3, 65) == ""
    assert "ln 65 = 4.17" in first_loss_notice(11.0, 65)
    assert first_loss_notice(1.2, 65)


def test_a_run_ends_at_the_loss_that_is_wished_for(settings, tmp_path, hand_clock):
    settings = settings.replace(evaluations=10, stop_loss=2.0)
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    trainer.backend.eval_loss_sum = lambda tokens, targets: (
        20.0 * np.count_nonzero(targets != -100) / trainer.state.step
    )
    result = trainer.fit()
    assert result.steps == 10 and result.evaluation.loss == pytest.approx(2.0)
    assert (tmp_path / "run/model.safetensors").exists() and (tmp_path / "run/loss.png").exists()
