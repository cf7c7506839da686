"""`quantize`: the folder it writes is read by every command, and an unknown scheme is refused."""

import numpy as np
import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.vision.init import init_vision_language_params
from nano_llama.core.vision.names import is_language_model
from nano_llama.formats import open_weights
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.vision_folder import open_vision_language, save_vision_language


@pytest.fixture(scope="module")
def model(make_tiny, tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("m") / "tiny", hidden_size=64, intermediate_size=96)


def test_a_folder_is_made_and_says_what_it_holds(cli, model, tmp_path):
    done = cli("quantize", "--model", model, "--to", "int4", "--out", tmp_path / "q", "--json", "--quiet")
    assert done.code == 0, done.shown
    assert done.json["matrices"] == {"Q8_0": 1, "Q4_1": 7}
    assert done.json["bytes"] < done.json["bytes_before"] / 3
    with open_weights(model) as before, open_weights(tmp_path / "q") as after:
        for name in before:
            step = 0 if "norm" in name else np.ptp(before[name], axis=1).max() / 15 / 2 * 1.01
            assert np.abs(before[name] - after[name]).max() <= step, name
    assert cli("info", tmp_path / "q").code == 0


def test_what_cannot_be_honoured_is_refused(cli, model, tmp_path):
    done = cli("quantize", "--model", model, "--to", "int5", "--out", tmp_path / "q")
    assert done.code == 2
    assert "int5" in done.err and "int4" in done.err
    (tmp_path / "there").mkdir()
    assert cli("quantize", "--model", model, "--to", "int4", "--out", tmp_path / "there").code == 2
    assert not (tmp_path / "q").exists()


def test_a_model_that_reads_images(cli, tmp_path):
    """Read back: every matrix is its blocks' values, the encoder's at int8 where it can be; all else is as it was."""
    config, source = tiny_vision_language_config(tied=True), tmp_path / "m"
    text = config.text_config.replace(hidden_size=64, intermediate_size=96, head_dim=8)
    vision = config.vision_config.replace(hidden_size=32, intermediate_size=40)  # fc2 has rows of 40
    config = config.replace(text_config=text, vision_config=vision)
    save_vision_language(source, config, init_vision_language_params(config))
    (source / "preprocessor_config.json").write_text("{}")
    done = cli(
        "quantize", "--model", source, "--to", "int4,first=bfloat16", "--out", tmp_path / "q", "--json", "--quiet"
    )
    assert done.code == 0, done.shown
    (_, before), (same, after) = open_vision_language(source), open_vision_language(tmp_path / "q")
    assert same == config and set(before) == set(after)
    kinds = {name: after.dtype_name(name) for name in after}
    for name, value in before.items():
        meant = "F32"
        if value.ndim == 2 and value.shape[1] % 32 == 0:
            meant = "Q8_0" if not is_language_model(name) or "embed_tokens" in name else "Q4_1"
            meant = "BF16" if name.startswith("model.text_model.layers.0.") else meant
        assert kinds[name] == meant, name
        expected = dequantize(meant, quantize(meant, value)) if meant.startswith("Q") else value
        np.testing.assert_array_equal(after[name], expected.astype(after[name].dtype), err_msg=name)
    assert {name for name in before if "fc2.weight" in name} < {name for name in kinds if kinds[name] == "F32"}
    counted = {kind: list(kinds.values()).count(kind) for kind in ("Q8_0", "BF16", "Q4_1")}
    assert done.json["matrices"] == counted and all(counted.values())
    assert done.json["bytes"] < done.json["bytes_before"] and 5 < done.json["bits_per_weight"] < 16
    assert (tmp_path / "q" / "preprocessor_config.json").read_text() == "{}"
    assert cli("info", tmp_path / "q").code == 0
    wrong = cli("quantize", "--model", source, "--to", "int4,*.vision_model.*=int4", "--out", tmp_path / "w")
    assert wrong.code == 2 and "no matrix of this model matches '*.vision_model.*'" in wrong.err
