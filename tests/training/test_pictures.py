"""Runs on pictures: what is refused, and the model that a run starts with."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.vision.init import init_vision_language_params
from nano_llama.core.vision.names import text_name
from nano_llama.formats import open_weights, reads_images, resolve_model
from nano_llama.formats.vision_folder import open_vision_language, save_vision_language
from nano_llama.training.finetune.settings import FinetuneSettings
from nano_llama.training.pictures import picture_data, picture_start
from nano_llama.training.settings import TrainSettings
from nano_llama.training.settings_layers import make_settings


def settings(**changes):
    usual = {"data": "shapes-vqa", "init_from": "nano_gpt", "encoder": "tiny", "tasks": "shape", "context": 96}
    return TrainSettings(**usual | {"max_steps": 2} | changes)


@pytest.mark.parametrize(
    "change",
    [{"init_from": None}, {"engine": "numpy"}, {"max_steps": None, "epochs": 1.0}, {"document_mask": True},
     {"execution": "graph"}, {"kernels": "triton"}, {"attention": "triton"}, {"mesh": "dp=2"},
     {"sample_prompt": "Once"}, {"language_model_lr": 0.0, "language_model_rank": 4}],
)  # fmt: skip
def test_what_pictures_cannot_have(change):
    with pytest.raises(UserError, match=f"{list(change)[-1]} = .* with data = 'shapes-vqa'"):
        settings(**change)


@pytest.mark.parametrize(
    "change",
    [{"encoder": "tiny"}, {"single_first": 3}, {"language_model_lr": 0.0}, {"language_model_rank": 4},
     {"freeze_encoder": True}],
)  # fmt: skip
def test_settings_of_images_are_for_pictures(change):
    with pytest.raises(UserError, match="is for --data shapes-vqa"):
        TrainSettings(data="stdlib", **change)


def test_an_unknown_task():
    with pytest.raises(UserError, match="unknown: 'shapes'"):
        picture_data(settings(tasks="shape,shapes"), None)


def test_a_llama_gets_an_encoder():
    dataset = picture_data(settings(), None)
    config, weights, _ = picture_start(settings(), dataset, None)
    assert (config.vision_config.hidden_size, config.image_seq_len) == (16, 4)
    assert dataset.rows.image_seq_len == 4 and dataset.vocab_size == config.text_config.vocab_size
    with open_weights(resolve_model("nano_gpt")) as llama:
        name = "model.layers.3.mlp.up_proj.weight"
        np.testing.assert_array_equal(weights[text_name(name)], llama[name])


def test_a_model_with_an_encoder_goes_on(tmp_path):
    dataset = picture_data(settings(), None)
    config, _, _ = picture_start(settings(), dataset, None)
    changed = init_vision_language_params(config, seed=7)
    save_vision_language(tmp_path / "m", config, changed, dataset.tokenizer)
    assert reads_images(tmp_path / "m") and not reads_images(resolve_model("nano_gpt"))
    more = settings(init_from=str(tmp_path / "m"), encoder=None)
    again, found, _ = picture_start(more, picture_data(more, None), None)
    assert again == config
    for name, value in changed.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    with pytest.raises(UserError, match="has one already"):
        picture_start(settings(init_from=str(tmp_path / "m")), dataset, None)
    with pytest.raises(UserError, match="context = 1000 is longer"):
        picture_start(more.replace(context=1000), dataset, None)


def test_the_preset_goes_on_from_a_model_that_sees():
    """Its encoder, like nano_gpt, is where nothing else is named."""
    more = make_settings(preset="eyes-cpu", flags={"init_from": "nano_eyes"})
    config, _, _ = picture_start(more, picture_data(more, None), None)
    assert config == open_vision_language(resolve_model("nano_eyes"))[0]


def test_a_new_encoder_is_not_frozen():
    """It has learned nothing."""
    frozen = settings(freeze_encoder=True)
    with pytest.raises(UserError, match=r"freeze_encoder = True, but .* has no encoder"):
        picture_start(frozen, picture_data(frozen, None), None)


def test_fine_tuning_does_not_have_them():
    with pytest.raises(UserError, match="learns from examples of text") as refused:
        FinetuneSettings(data="shapes-vqa", init_from="nano_gpt")
    assert "nano-llama train --data shapes-vqa" in refused.value.hint
    with pytest.raises(UserError):
        FinetuneSettings(data="x.jsonl", init_from="nano_gpt", encoder="tiny")
