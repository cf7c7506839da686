"""`eval` of a model that reads images: the shape of its answer, and what is refused."""

import pytest

from nano_llama.core.init import init_params
from nano_llama.core.presets import model_preset
from nano_llama.core.vision.init import add_vision
from nano_llama.core.vision.presets import encoder_preset
from nano_llama.formats.vision_folder import save_vision_language
from nano_llama.tokenizer import Tokenizer
from nano_llama.tokenizer.image_token import with_image_token

pytest.importorskip("torch")


def test_accuracies(cli, tmp_path):
    pytest.importorskip("sklearn")
    tokenizer = with_image_token(Tokenizer.from_pretrained("nano_gpt"))
    text = model_preset("tiny", vocab_size=tokenizer.vocab_size - 1, max_position_embeddings=96)
    config, params = add_vision(text, init_params(text, seed=2), encoder_preset("tiny"))
    save_vision_language(tmp_path / "m", config, params, tokenizer)
    done = cli("eval", "--model", tmp_path / "m", "--data", "shapes-vqa", "--pictures", 24, "--json", "--quiet")
    assert done.code == 0, done.err
    assert done.json["accuracy"].keys() == done.json["control"].keys() == done.json["asked"].keys()
    assert done.json["accuracy"].keys() >= {"colour", "shape", "side"} and done.json["pictures"] == 24
    refused = cli("eval", "--model", tmp_path / "m", "--data", "stdlib")
    assert refused.code == 2 and "reads images" in refused.err


def test_a_model_without_eyes(cli, tiny_model):
    refused = cli("eval", "--model", tiny_model, "--data", "shapes-vqa")
    assert refused.code == 2 and "does not read images" in refused.err
