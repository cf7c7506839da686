"""What shapes are allowed, and what follows from them."""

import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import ConfigError
from nano_llama.core.vision import VisionConfig


def test_numbers_that_follow():
    config = tiny_vision_language_config()
    assert (config.vision_config.patches_per_side, config.vision_config.num_patches) == (4, 16)
    assert (config.vision_config.head_dim, config.vision_config.values_per_patch) == (3, 12)
    assert (config.image_seq_len, config.projector_inputs) == (4, 24)
    assert config.replace(scale_factor=4).image_seq_len == 1


def test_pixels_may_be_left_over():
    vision = VisionConfig(
        image_size=384, patch_size=14, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )  # SmolVLM's
    assert (vision.patches_per_side, vision.image_seq_len(3)) == (27, 81)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"patch_size": 9}, "image_size = 8 must be at least patch_size = 9"),
        ({"num_attention_heads": 4}, "hidden_size = 6 must be a multiple of num_attention_heads = 4"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"layer_norm_eps": -1.0}, "layer_norm_eps = -1.0"),
    ],
)
def test_impossible_encoders(changes, says):
    with pytest.raises(ConfigError, match=says):
        tiny_vision_language_config().vision_config.replace(**changes)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"scale_factor": 3}, "scale_factor = 3 must be a divisor of the 4 patches per side"),
        ({"image_token_id": 23}, "image_token_id = 23 must be an id below 23"),
        ({"image_token_id": True}, "image_token_id"),
        ({"vision_config": {"image_size": 8}}, "a VisionConfig"),
    ],
)
def test_impossible_models(changes, says):
    with pytest.raises(ConfigError, match=says):
        tiny_vision_language_config().replace(**changes)


def test_an_image_fits_into_the_context():
    config = tiny_vision_language_config()
    short = config.text_config.replace(max_position_embeddings=3)
    with pytest.raises(ConfigError, match="An image is 4 tokens, the context only 3"):
        config.replace(text_config=short)


def test_unknown_fields_are_refused():
    with pytest.raises(TypeError):
        VisionConfig(image_size=8, patch_size=2, colour="red")
