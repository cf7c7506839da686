"""What the tests of training with Volume 2 share: a short text and settings that train in a second."""

from pathlib import Path

import numpy as np
import pytest

from nano_llama.core.training.settings import TrainSettings


@pytest.fixture(scope="session")
def tale(tmp_path_factory) -> Path:
    """12,000 characters of words in random order: its letters are predictable, its words are not."""
    words = ["the", "cat", "saw", "a", "red", "bird", "and", "dog", "ran", "to", "old", "tree", "while", "it", "sang"]
    path = tmp_path_factory.mktemp("text") / "tale.txt"
    path.write_text(" ".join(np.random.default_rng(5).choice(words, 4000))[:12000])
    return path


@pytest.fixture
def recipe(tale) -> TrainSettings:
    return TrainSettings(
        data=str(tale), tokenizer="char", model="tiny", context=16, batch_size=8, lr=0.01,
        max_steps=12, evaluations=1, log_every=1, device="cpu", precision="fp32", compile="off", num_threads=1,
    )  # fmt: skip
