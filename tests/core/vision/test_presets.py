"""The named encoders: each fits the pictures of shapes-vqa and the pixel shuffle."""

import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.presets import model_preset
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.presets import ENCODER_PRESETS, SCALE_FACTOR, encoder_preset
from nano_llama.data.vqa import ShapesVQA


@pytest.mark.parametrize("name", ENCODER_PRESETS)
def test_each_fits(name):
    encoder = encoder_preset(name)
    assert encoder.image_size == ShapesVQA.image_size
    config = VisionLanguageConfig(
        text_config=model_preset("nano"), vision_config=encoder, image_token_id=0, scale_factor=SCALE_FACTOR
    )
    assert config.image_seq_len == {"tiny": 4, "nano": 16}[name]


def test_an_unknown_one():
    with pytest.raises(UserError, match="Unknown image encoder 'huge'"):
        encoder_preset("huge")
