"""A run with its report: examined before and after, with the same bits as without, also when it is killed between."""

import signal

import numpy as np
import pytest

pytest.importorskip("torch")

from nano_llama.formats import open_weights
from nano_llama.training.callback import Callback, Callbacks
from nano_llama.training.finetune.examination import FILE, KeepBefore, read_before
from nano_llama.training.finetune.run import SHARE, fit_with_report
from nano_llama.training.outcome import TrainingInterrupted
from nano_llama.vol2_torch.trainer import Trainer


def fit(recipe, out, callback=None, **options):
    keep = KeepBefore()
    return fit_with_report(Trainer(recipe, out, progress=Callbacks(callback or Callback(), keep), **options), keep)


def weights_of(folder):
    with open_weights(folder) as weights:
        return {name: np.array(weights[name]) for name in weights}


class Stop(Callback):
    """SIGTERM comes after a step."""

    def __init__(self, step):
        self.step = step

    def stepped(self, record):
        if record.step == self.step:
            signal.raise_signal(signal.SIGTERM)


def test_the_bits_are_those_of_a_run_without_it(recipe, tmp_path):
    recipe = recipe.replace(dropout=0.1, ema=0.5)
    Trainer(recipe, tmp_path / "plain").fit()
    done = fit(recipe, tmp_path / "examined")
    plain, examined = weights_of(tmp_path / "plain"), weights_of(tmp_path / "examined")
    assert plain.keys() == examined.keys() and all(np.array_equal(plain[name], examined[name]) for name in plain)
    assert done.after.validation.loss == pytest.approx(done.result.evaluation.loss, rel=1e-6), "of the averages"
    assert done.before.validation.loss > done.after.validation.loss
    assert done.report.read_text().startswith("# Fine-tuning of base")


def test_what_was_found_before_survives_a_kill(recipe, tmp_path):
    whole = fit(recipe, tmp_path / "whole")
    with pytest.raises(TrainingInterrupted):
        fit(recipe, tmp_path / "killed", Stop(1))
    kept = read_before(tmp_path / "killed")
    assert kept is not None and not (tmp_path / "killed/report.md").exists()
    resumed = fit(recipe, tmp_path / "killed", resume=True)
    assert resumed.before == kept
    assert (kept.validation, kept.held_out, kept.answers) == (
        whole.before.validation, whole.before.held_out, whole.before.answers
    )  # fmt: skip
    assert (resumed.after.validation, resumed.after.answers) == (whole.after.validation, whole.after.answers)


def test_without_what_was_found_before_there_is_still_a_report(recipe, tmp_path):
    fit(recipe, tmp_path / "run")
    (tmp_path / "run" / FILE).unlink()
    done = fit(recipe.replace(max_steps=4), tmp_path / "run", resume=True)
    assert done.before is None and "was not measured" in done.report.read_text()


def test_a_run_by_the_clock_leaves_time_for_it(recipe, tmp_path):
    keep = KeepBefore()
    loop = Trainer(recipe.replace(max_minutes=0.2, stop_loss=99.0), tmp_path / "run", progress=Callbacks(keep))
    done = fit_with_report(loop, keep)
    assert (
        done.before.seconds <= done.after.seconds + loop.clock.end.afterwards <= SHARE * 0.2 * 60 + done.after.seconds
    )
    assert loop.clock.budget.reserve > loop.clock.end.afterwards >= 1.0
