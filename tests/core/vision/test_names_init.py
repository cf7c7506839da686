"""Names and shapes of the parameters, and fresh weights."""

import numpy as np
import pytest

from helpers.vision_cases import tiny_vision_language_config
from nano_llama.core.errors import FormatError
from nano_llama.core.init import init_params
from nano_llama.core.names import is_decayed, is_hidden_matrix
from nano_llama.core.vision.init import add_vision, check_vision_language_params, init_vision_language_params
from nano_llama.core.vision.names import text_name, vision_language_shapes


@pytest.mark.parametrize("tied", [False, True])
def test_shapes_count_as_the_config_says(tied):
    config = tiny_vision_language_config(tied=tied)
    assert sum(map(np.prod, vision_language_shapes(config).values())) == config.num_parameters


def test_fresh_weights():
    config = tiny_vision_language_config(std=0.02)
    params = init_vision_language_params(config, seed=3)
    check_vision_language_params(config, params)
    for name, value in init_params(config.text_config, seed=3).items():
        np.testing.assert_array_equal(params[text_name(name)], value, err_msg=name)  # the LLaMA's, as without images
    vision = {name: value for name, value in params.items() if not name.startswith(("model.text_model", "lm_head"))}
    assert all(not value.any() for name, value in vision.items() if name.endswith(".bias"))
    assert all((value == 1).all() for name, value in vision.items() if "norm" in name and name.endswith(".weight"))
    drawn = [value.ravel() for name, value in vision.items() if value.ndim > 1]
    for name, value in vision.items():
        if value.ndim > 1:
            std = 0.02 * (5 if "position" in name else 1)
            assert 0 < np.abs(value).max() < 6 * std and value.std() < 1.5 * std, name
    firsts = [values[0] for values in drawn]
    assert len(set(firsts)) == len(firsts)  # each tensor has draws of its own
    same = init_vision_language_params(config, seed=3, dtype=np.float64)
    assert all((same[name] == params[name]).all() for name in params)


@pytest.mark.parametrize("tied", [False, True])
def test_a_trained_llama_gets_an_encoder(tied):
    wanted = tiny_vision_language_config(tied=tied)
    text = init_params(wanted.text_config, seed=1)
    config, params = add_vision(wanted.text_config, text, wanted.vision_config, scale_factor=4)
    check_vision_language_params(config, params)
    assert (config.image_token_id, config.text_config.vocab_size, config.scale_factor) == (23, 24, 4)
    for name, value in text.items():
        kept = params[text_name(name)]
        np.testing.assert_array_equal(kept[: len(value)], value, err_msg=name)
        if len(kept) > len(value):
            np.testing.assert_allclose(kept[23], value.mean(axis=0), rtol=1e-6)
    params["model.text_model.norm.weight"] *= 2
    assert (text["model.norm.weight"] == 1).all()  # the LLaMA itself stays as it is


def test_what_does_not_fit_is_named():
    config = tiny_vision_language_config()
    params = init_vision_language_params(config)
    params["model.vision_model.post_layernorm.bias"] = np.zeros(5, np.float32)
    with pytest.raises(FormatError, match=r"post_layernorm\.bias has shape \(5,\)"):
        check_vision_language_params(config, params)
    del params["model.vision_model.post_layernorm.bias"]
    with pytest.raises(FormatError, match=r"lacks model\.vision_model\.post_layernorm\.bias"):
        check_vision_language_params(config, params)


def test_optimizers_tell_matrices_from_the_rest():
    shapes = vision_language_shapes(tiny_vision_language_config())
    assert {name for name in shapes if is_decayed(name)} == {name for name, shape in shapes.items() if len(shape) > 1}
    outside = ("embed", "lm_head", "modality_projection")
    matrices = {name for name, shape in shapes.items() if len(shape) == 2 and not any(part in name for part in outside)}
    assert {name for name in shapes if is_hidden_matrix(name)} == matrices
