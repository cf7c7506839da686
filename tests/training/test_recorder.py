"""What is written along the way: cut back together on resume, and pictures that never take much of the time."""

from types import SimpleNamespace

import numpy as np
import pytest

from nano_llama.data.batches import ArrayTokens
from nano_llama.data.openings import openings
from nano_llama.tokenizer import Tokenizer
from nano_llama.training import recorder
from nano_llama.training.metrics import read_metrics
from nano_llama.training.recorder import Recorder
from nano_llama.training.run_folder import RunFolder


@pytest.fixture
def make(tmp_path, settings, hand_clock):
    tokenizer = Tokenizer.train_char("abc def\n")
    split = ArrayTokens(np.array(tokenizer.encode("abc def\nabc def abc\n" * 9)))

    def make(keep_to=None, **changes):
        wanted = settings.replace(sample_tokens=3, **changes)
        return Recorder(
            RunFolder(tmp_path),
            wanted,
            tokenizer,
            openings(split, tokenizer, 2, 8),
            title="t",
            keep_to=keep_to,
            clock=hand_clock,
        )

    return make


def always_a(prompt, params):
    return iter([1] * params.max_tokens)


def test_lines_and_samples_are_cut_back_together(make, tmp_path):
    first = make()
    for step in (10, 20):
        first.write(SimpleNamespace(row=lambda step=step: {"step": step}))
        assert len(first.sample(step, 1.5, always_a, lambda: False)) == 2
    first.close()
    make(keep_to=10).close()
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [10]
    text = (tmp_path / "samples.md").read_text()
    assert "## step 10, validation loss 1.5000" in text and "step 20" not in text


@pytest.mark.parametrize("changes", [{"samples": 0}, {"evaluations": 0}])
def test_no_samples_where_none_are_wished_for(make, tmp_path, changes):
    report = make(**changes)
    assert report.sample(1, 1.0, always_a, lambda: False) == []
    assert not (tmp_path / "samples.md").exists()


def test_what_was_given_up_leaves_nothing(make, tmp_path):
    report = make()
    assert report.sample(1, 1.0, always_a, lambda: True) == []
    assert "step" not in (tmp_path / "samples.md").read_text()


def test_slow_pictures_come_less_often(make, monkeypatch, hand_clock):
    def draws_for_10_seconds(*arguments):
        hand_clock.now += 10.0

    monkeypatch.setattr(recorder, "plot_run", draws_for_10_seconds)
    report = make()
    hand_clock.now += 59.0
    assert not report.picture_is_due()
    hand_clock.now += 1.0
    assert report.picture_is_due()
    report.draw(print)
    hand_clock.now += 499.0
    assert not report.picture_is_due(), "10 s of 500 are the 2% that drawing may take"
    hand_clock.now += 1.0
    assert report.picture_is_due()
