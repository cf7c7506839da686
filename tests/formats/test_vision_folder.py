"""Folders of models with images: written, read, and read by transformers."""

import ml_dtypes
import numpy as np
import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import ConfigError, FormatError
from nano_llama.core.files import read_json, write_json
from nano_llama.core.vision.init import init_vision_language_params
from nano_llama.formats import describe, open_model, open_text_model, read_config
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.safetensors import save_safetensors
from nano_llama.formats.vision_folder import open_vision_language, read_vision_language_config, save_vision_language


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def saved(request, tmp_path):
    config = tiny_vision_language_config(tied=request.param)
    params = init_vision_language_params(config)
    save_vision_language(tmp_path / "model", config, params)
    return tmp_path / "model", config, params


def test_there_and_back(saved):
    folder, config, params = saved
    assert read_vision_language_config(folder) == config
    found, weights = open_vision_language(folder)
    with weights:
        assert found == config and set(weights) == set(params)
        for name, value in params.items():
            np.testing.assert_array_equal(weights[name], value, err_msg=name)


def test_transformers_loads_it(saved):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder, _, params = saved
    model, report = transformers.Idefics3ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    state = model.state_dict()
    assert all(torch.equal(state[name], torch.tensor(value)) for name, value in params.items())


def test_a_tied_head_that_is_stored_again(tmp_path):
    config = tiny_vision_language_config(tied=True)
    params = init_vision_language_params(config)
    folder = tmp_path / "model"
    save_vision_language(folder, config, params)
    embedding = params["model.text_model.embed_tokens.weight"]
    save_safetensors(folder / "model.safetensors", params | {"lm_head.weight": embedding})
    assert "lm_head.weight" not in open_vision_language(folder)[1]
    save_safetensors(folder / "model.safetensors", params | {"lm_head.weight": embedding + 1})
    with pytest.raises(FormatError, match=r"lm_head\.weight is not model\.text_model\.embed_tokens\.weight"):
        open_vision_language(folder)


def test_weights_of_another_shape(saved):
    folder, _, _ = saved
    raw = read_json(folder / "config.json", what="config")
    raw["vision_config"]["intermediate_size"] = 11
    write_json(folder / "config.json", raw)
    with pytest.raises(FormatError, match=r"fc1\.weight has shape \(10, 6\), but the config implies \(11, 6\)"):
        open_vision_language(folder)


def test_it_is_not_taken_for_a_llama(saved):
    for reader in (open_model, read_config):
        with pytest.raises(ConfigError, match="'idefics3' is not a LLaMA alone: it reads images") as caught:
            reader(saved[0])
        assert "generate --image" in caught.value.hint


def test_quantized(tmp_path):
    """Every reader sees the blocks' values: the whole, and the LLaMA within it, whose blocks the engine takes."""
    config = tiny_vision_language_config(tied=True)
    text = config.text_config.replace(
        hidden_size=64, num_attention_heads=2, num_key_value_heads=1, intermediate_size=96
    )
    config = config.replace(text_config=text)
    params = init_vision_language_params(config, seed=1)
    name = "layers.0.mlp.gate_proj.weight"
    kinds = {"model.text_model." + name: "Q4_1", "model.text_model.embed_tokens.weight": "Q8_0"}
    kinds["model.connector.modality_projection.proj.weight"] = "BF16"
    save_vision_language(tmp_path / "q", config, params, kinds=kinds, scheme="some words")
    found, weights = open_vision_language(tmp_path / "q")
    assert found == config
    for tensor, value in params.items():
        if kinds.get(tensor) in ("Q4_1", "Q8_0"):
            expected = dequantize(kinds[tensor], quantize(kinds[tensor], value))
        else:
            expected = value.astype(ml_dtypes.bfloat16) if tensor in kinds else value
        np.testing.assert_array_equal(weights[tensor], expected, err_msg=tensor)
    llama = open_text_model(tmp_path / "q")
    assert llama.raw("model." + name).kind == "Q4_1"
    np.testing.assert_array_equal(llama["model." + name], weights["model.text_model." + name])
    assert describe(tmp_path / "q")["types"] == {"Q4_1": 1, "Q8_0": 1, "BF16": 1, "F32": len(params) - 3}
