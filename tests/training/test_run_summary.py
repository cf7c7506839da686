"""A run at a glance says what its own files say, in every state that a run can be in."""

import pytest

from helpers.training import FakeTrainer
from nano_llama.core.errors import UserError
from nano_llama.training.metrics import read_metrics
from nano_llama.training.run_summary import find_runs, summarize


def test_a_run_s_figures_are_those_of_its_files(settings, tmp_path, hand_clock):
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    trainer.fit()
    summary, rows = summarize(tmp_path / "run")
    assert rows == read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert (summary.name, summary.state, summary.step) == ("run", "finished", 20)
    assert summary.parameters == trainer.config.num_parameters and summary.vocab_size == trainer.config.vocab_size
    assert summary.tokens == 20 * settings.tokens_per_step and summary.batch_tokens == settings.tokens_per_step
    assert (summary.optimizer, summary.lr, summary.data) == (settings.optimizer, settings.lr, settings.data)
    assert summary.val_loss == min(row["val_loss"] for row in rows if "val_loss" in row)
    assert summary.elapsed_s == rows[-1]["elapsed_s"]


def test_states(settings, tmp_path, hand_clock):
    trainer = FakeTrainer(settings, tmp_path / "run", clock=hand_clock)
    seen = []
    gradient = trainer.backend.gradient

    def looked_at_and_stopped(batches):
        seen.append(summarize(tmp_path / "run")[0].state)
        if trainer.state.step == 12:
            raise RuntimeError
        return gradient(batches)

    trainer.backend.gradient = looked_at_and_stopped
    with pytest.raises(RuntimeError):
        trainer.fit()
    assert set(seen) == {"running"}
    assert summarize(tmp_path / "run")[0].state == "stopped"
    (tmp_path / "run/checkpoints/step-00000010/state.json").write_text("{")
    assert summarize(tmp_path / "run")[0].state == "stopped"


def test_a_run_that_reached_its_loss_says_so_and_does_not_go_on_without_a_lower_one(settings, tmp_path):
    settings = settings.replace(evaluations=4, stop_loss=100.0)
    assert FakeTrainer(settings, tmp_path / "run").fit().steps == 5
    assert summarize(tmp_path / "run")[0].state == "reached its loss"
    with pytest.raises(UserError, match="stop_loss is 100") as caught:
        FakeTrainer(settings, tmp_path / "run", resume=True).fit()
    assert "--stop-loss" in caught.value.hint
    FakeTrainer(settings.replace(stop_loss=0.001), tmp_path / "run", resume=True).fit()
    assert summarize(tmp_path / "run")[0].state == "finished"


def test_finding_runs(tmp_path):
    for name in ("b", "a/c", "a/d/e", "a/d/f/too/deep"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "train.json").touch()
    assert [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)] == ["a/c", "a/d/e", "b"]
    assert find_runs(tmp_path / "b") == [tmp_path / "b"]
    with pytest.raises(UserError, match="no such folder"):
        find_runs(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no runs in it"):
        find_runs(tmp_path / "empty")
