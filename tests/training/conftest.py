"""What the tests of training share: a short text, settings, and a clock that is set by hand."""

from pathlib import Path

import numpy as np
import pytest

from helpers.training import HandClock
from nano_llama.training import clock
from nano_llama.training.settings import TrainSettings


@pytest.fixture(scope="session")
def text_file(tmp_path_factory) -> Path:
    """6,000 characters that repeat with variations: quick to learn, never the same twice."""
    words = ["the", "cat", "saw", "a", "red", "bird", "and", "dog", "ran", "to", "old", "tree", "while", "it", "sang"]
    rng = np.random.default_rng(5)
    text = " ".join(rng.choice(words, 1500))[:6000]
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    path.write_text(text)
    return path


@pytest.fixture
def settings(text_file) -> TrainSettings:
    return TrainSettings(
        data=str(text_file), tokenizer="char", model="tiny", context=16, batch_size=4, max_steps=20,
        log_every=5, evaluations=2, num_threads=1,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def no_slowdown(monkeypatch):
    """The real machine's does not belong to a clock that is set by hand."""
    monkeypatch.setattr(clock, "slowdown", lambda seconds: 1.0)


@pytest.fixture
def hand_clock() -> HandClock:
    return HandClock()
