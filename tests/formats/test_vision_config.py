"""config.json of an Idefics3, there and back."""

import warnings

import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import ConfigError
from nano_llama.formats.vision_config import vision_language_from_hf, vision_language_to_hf


@pytest.mark.parametrize("tied", [False, True])
def test_there_and_back(tied):
    config = tiny_vision_language_config(tied=tied)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert vision_language_from_hf(vision_language_to_hf(config)) == config


@pytest.mark.parametrize("kind", ["Idefics3", "SmolVLM"])
def test_what_transformers_writes(kind):
    transformers = pytest.importorskip("transformers")
    config = tiny_vision_language_config()
    ours = vision_language_to_hf(config)
    parts = {
        "text_config": ours["text_config"],
        "vision_config": {k: v for k, v in ours["vision_config"].items() if k != "model_type"},
    }
    theirs = getattr(transformers, f"{kind}Config")(image_token_id=22, scale_factor=2, **parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers writes many keys beside the shape
        assert vision_language_from_hf(theirs.to_dict()) == config


def test_defaults_that_transformers_leaves_out():
    raw = vision_language_to_hf(tiny_vision_language_config())
    raw["vision_config"] = {"hidden_size": 768, "image_size": 512, "patch_size": 16, "num_attention_heads": 12}
    raw["scale_factor"] = 16
    vision = vision_language_from_hf(raw).vision_config
    assert (vision.intermediate_size, vision.num_hidden_layers, vision.layer_norm_eps) == (3072, 12, 1e-6)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llava"}, "model_type 'llava' is not"),
        ({"vision_config": None}, "vision_config = None: an object was expected"),
        ({"vision_config": {"hidden_act": "gelu"}}, "hidden_act = 'gelu'; this encoder computes"),
        ({"vision_config": {"num_channels": 1}}, "num_channels = 1"),
        ({"scale_factor": 3}, "scale_factor = 3"),
    ],
)
def test_refused(change, says):
    with pytest.raises(ConfigError, match=says):
        vision_language_from_hf(vision_language_to_hf(tiny_vision_language_config()) | change)


def test_a_missing_image_token():
    raw = vision_language_to_hf(tiny_vision_language_config())
    del raw["image_token_id"]
    with pytest.raises(ConfigError, match="image_token_id missing"):
        vision_language_from_hf(raw)
