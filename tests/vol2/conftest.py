"""What the tests of training with Volume 2 share: settings that train in a second."""

import pytest

from nano_llama.training.settings import TrainSettings


@pytest.fixture
def recipe(tale) -> TrainSettings:
    return TrainSettings(
        data=str(tale), tokenizer="char", model="tiny", context=16, batch_size=8, lr=0.01,
        max_steps=12, evaluations=1, log_every=1, device="cpu", precision="fp32", compile="off", num_threads=1,
    )  # fmt: skip
