"""What runs on pictures save where the LLaMA has factors: the merged model, the factors, and whose they are."""

import numpy as np
import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import UserError
from nano_llama.core.lora import LoraConfig, adapter_shapes
from nano_llama.core.vision.init import init_vision_language_params
from nano_llama.core.vision.names import is_language_model, language_model, text_name
from nano_llama.formats.vision_folder import open_vision_language
from nano_llama.training.picture_files import (
    FACTORS,
    MergedVisionLanguageFiles,
    check_same_base,
    digest,
    open_with_factors,
)


class FakeTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").write_text("{}")


LORA = LoraConfig(r=3)


@pytest.fixture
def put(tmp_path):
    """(files, all weights that were there before, the trained ones), put into tmp_path."""
    config = tiny_vision_language_config()
    weights = init_vision_language_params(config, seed=1)
    rng = np.random.default_rng(2)
    trained = {name: array + 1 for name, array in weights.items() if not is_language_model(name)}
    for name, shape in adapter_shapes(LORA, config.text_config).items():
        trained[text_name(name)] = rng.standard_normal(shape, np.float32)
    saved = MergedVisionLanguageFiles(config, FakeTokenizer(), language_model(weights), LORA)
    for _ in range(2):  # the second replaces the first
        saved.put(tmp_path, trained)
    return saved, weights, trained


def test_the_model_is_merged_and_the_factors_lie_beside_it(put, tmp_path):
    saved, before, trained = put
    assert {file.name for file in tmp_path.iterdir()} >= {"config.json", "tokenizer.json", "model.safetensors", FACTORS}
    config, weights = open_vision_language(tmp_path)
    assert config == saved.config
    adapted = 0
    for name in weights:
        module, expected = name.removesuffix(".weight"), trained.get(name, before[name])
        if f"{module}.lora_A" in trained:
            A, B = trained[f"{module}.lora_A"], trained[f"{module}.lora_B"]
            expected, adapted = expected + 16 / 3 * (B.astype(np.float64) @ A), adapted + 1
        np.testing.assert_allclose(weights[name], expected, rtol=1e-5, atol=1e-5, err_msg=name)
    assert adapted == 7 * config.text_config.num_hidden_layers
    for opened in (saved.open(tmp_path), open_with_factors(tmp_path)):
        assert all(np.array_equal(opened[name], array) for name, array in trained.items())


def test_the_factors_belong_to_one_llama(put, tmp_path):
    _, before, _ = put
    base = language_model(before)
    check_same_base(tmp_path, base, "org/base")
    name = text_name("model.norm.weight")
    other = base | {name: np.nextafter(base[name], np.float32(2))}
    with pytest.raises(UserError, match="init_from = 'org/base' has changed since"):
        check_same_base(tmp_path, other, "org/base")
    assert digest(base) == digest(dict(reversed(base.items()))), "an order of names is no other model"
    assert digest(base) != digest(base | {name: base[name].astype(np.float64)})
