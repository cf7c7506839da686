"""Quantized folders: they open as any folder does, hand out their blocks, and a false word about them is found."""

import json

import numpy as np
import pytest

from nano_llama.core.errors import ConfigError, FormatError
from nano_llama.formats import open_weights, read_config, save_hf
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.quantized import save_quantized

UP, DOWN = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"
KINDS = {UP: "Q4_1", DOWN: "Q8_0", "model.embed_tokens.weight": "BF16"}


@pytest.fixture
def saved(tmp_path, tiny_config, random_weights):
    config = tiny_config(tied=True, hidden_size=96, intermediate_size=64)
    weights = random_weights(config)
    save_quantized(tmp_path / "q", config, weights, KINDS, scheme="some words")
    return tmp_path / "q", config, weights


def test_matrices_come_back_as_their_blocks_mean(saved):
    folder, config, weights = saved
    assert read_config(folder) == config
    with open_weights(folder) as found:
        assert found.keys() == weights.keys()
        for name, kind in ((UP, "Q4_1"), (DOWN, "Q8_0")):
            blocks = quantize(kind, weights[name])
            assert found.dtype_name(name) == kind
            assert found.shape(name) == weights[name].shape
            np.testing.assert_array_equal(found.raw(name).blocks, blocks)
            np.testing.assert_array_equal(found[name], dequantize(kind, blocks))
        assert found.dtype_name("model.embed_tokens.weight") == "BF16"
        np.testing.assert_array_equal(found["model.norm.weight"], weights["model.norm.weight"])


def test_blocks_of_the_kind_that_is_wanted_are_not_rounded_again(saved, tmp_path):
    folder, config, _ = saved
    with open_weights(folder) as weights:
        save_quantized(tmp_path / "again", config, weights, {UP: "Q4_1"})
    with open_weights(folder) as first, open_weights(tmp_path / "again") as second:
        np.testing.assert_array_equal(first.raw(UP).blocks, second.raw(UP).blocks)
        np.testing.assert_array_equal(first[DOWN], second[DOWN])
        assert second.dtype_name(DOWN) == "F32"


def test_it_can_be_saved_as_a_folder_of_plain_weights(saved, tmp_path):
    folder, config, _ = saved
    with open_weights(folder) as weights:
        save_hf(tmp_path / "plain", config, weights)
    with open_weights(folder) as first, open_weights(tmp_path / "plain") as second:
        for name in first:
            np.testing.assert_array_equal(first[name].astype(np.float32), second[name].astype(np.float32))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks": {UP: "Q8_0"}}, "not as rows of Q8_0"),
        ({"blocks": {UP: "Q9_9"}}, "listed as 'Q9_9'"),
        ({"blocks": {"model.norm.weight": "Q4_1"}}, "not as rows of Q4_1"),
        ({"blocks": {"nowhere": "Q4_1"}}, "no such tensor"),
        ({"blocks": [1]}, "lists no blocks"),
    ],
)
def test_a_false_word_about_a_matrix_is_refused(saved, change, said):
    folder, _, _ = saved
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match=said):
        open_weights(folder)


def test_other_programs_quantizations_are_refused_by_name(saved):
    folder, _, _ = saved
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "gptq", "bits": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match="gptq"):
        open_weights(folder)
