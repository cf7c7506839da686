"""Where a run begins: its data, its shape, and weights from elsewhere."""

import numpy as np
import pytest

from helpers.training import FakeTrainer
from nano_llama.core.errors import UserError
from nano_llama.formats import open_weights
from nano_llama.training.callback import Callback
from nano_llama.training.settings import TrainSettings
from nano_llama.training.start import prepare_dataset


def test_no_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="No data"):
        FakeTrainer(TrainSettings(max_steps=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_fresh_model_takes_its_vocabulary_from_the_data(settings, tmp_path, text_file):
    trainer = FakeTrainer(settings, tmp_path / "run")
    assert trainer.config.vocab_size >= len(set(text_file.read_text()))
    assert trainer.config.max_position_embeddings == settings.context


def test_init_from_goes_on_with_weights_shape_and_tokenizer(settings, tmp_path, text_file):
    FakeTrainer(settings, tmp_path / "first").fit()
    settings = TrainSettings(
        data=str(text_file), init_from=str(tmp_path / "first"), context=8, max_steps=3, evaluations=0
    )
    second = FakeTrainer(settings, tmp_path / "second")
    with open_weights(tmp_path / "first") as weights:
        assert all(np.array_equal(second.backend.params[name], weights[name]) for name in weights)
    assert second.tokenizer.fingerprint == FakeTrainer(settings, tmp_path / "third").tokenizer.fingerprint
    assert second.config.max_position_embeddings == 16, "the model's own, not this run's shorter context"
    second.fit()
    FakeTrainer(settings.replace(max_steps=4), tmp_path / "second", resume=True).fit()
    with pytest.raises(UserError, match="context = 64 is longer than the 16 positions"):
        FakeTrainer(settings.replace(context=64), tmp_path / "fourth")


def test_a_vocabulary_that_the_text_cannot_fill_is_said(settings):
    class Heard(Callback):
        notices: list[str] = []  # noqa: RUF012

        def notice(self, text):
            self.notices.append(text)

    dataset = prepare_dataset(settings.replace(tokenizer="bpe:4096"), None, Heard())
    assert dataset.vocab_size < 4096
    (said,) = Heard.notices
    assert f"{dataset.vocab_size:,} ids, not 4,096" in said
