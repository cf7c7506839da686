"""Names and shapes against transformers; fresh weights; named sizes and their parameter counts."""

import re

import numpy as np
import pytest

from nano_llama.core import presets
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.init import check_params, init_params
from nano_llama.core.names import is_decayed, is_hidden_matrix, parameter_shapes


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("tied", [False, True])
def test_names_and_shapes_are_transformers_own(tiny_config, attention, tied):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    config = tiny_config(attention, tied=tied, head_dim=10)
    with torch.device("meta"):
        theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_hf_dict()))
    theirs.tie_weights()
    expected = {name: tuple(parameter.shape) for name, parameter in theirs.named_parameters()}
    assert parameter_shapes(config) == expected
    assert config.num_parameters == sum(int(np.prod(shape)) for shape in expected.values())


def test_kinds_of_parameters(tiny_config):
    shapes = parameter_shapes(tiny_config())
    assert {name for name in shapes if not is_decayed(name)} == {n for n, s in shapes.items() if len(s) == 1}
    assert {n for n in shapes if is_hidden_matrix(n)} == {n for n, s in shapes.items() if len(s) == 2} - {
        "model.embed_tokens.weight",
        "lm_head.weight",
    }


def test_fresh_weights_have_the_stated_spread_and_do_not_depend_on_dtype(tiny_config):
    config = tiny_config(hidden_size=96, intermediate_size=256, num_hidden_layers=8, initializer_range=0.05)
    params = init_params(config, seed=3)
    assert params.keys() == parameter_shapes(config).keys()
    for name, value in params.items():
        if name.endswith("norm.weight"):
            assert (value == 1).all()
            continue
        residual = "o_proj" in name or "down_proj" in name
        assert value.std() == pytest.approx(0.05 / (4 if residual else 1), rel=0.05), name  # sqrt(2 * 8) = 4
    wide = init_params(config, seed=3, dtype=np.float64)
    assert all(np.array_equal(wide[name], params[name].astype(np.float64)) for name in params)
    other = init_params(config, seed=4)
    assert not np.array_equal(other["lm_head.weight"], params["lm_head.weight"])


def test_check_params_names_the_tensor(tiny_config):
    config = tiny_config()
    params = init_params(config)
    check_params(config, params)
    name = "model.layers.1.mlp.up_proj.weight"
    with pytest.raises(FormatError, match=f"lacks {name}"):
        check_params(config, {key: value for key, value in params.items() if key != name})
    with pytest.raises(FormatError, match="extra stranger"):
        check_params(config, {**params, "stranger": np.zeros(1)})
    with pytest.raises(FormatError, match=rf"{name} has shape \(48, 88\).*\(88, 48\)"):
        check_params(config, {**params, name: params[name].T})


def test_parameter_counts_in_the_presets_docstring():
    rows = dict(re.findall(r"^    (\w+) +([\d,]+) +[\d,]+ ", presets.__doc__, re.MULTILINE))
    assert rows.keys() == presets.MODEL_PRESETS.keys()
    for name, count in rows.items():
        assert presets.model_preset(name).num_parameters == int(count.replace(",", "")), name


def test_presets_take_changes_and_refuse_strangers():
    assert presets.model_preset("char", vocab_size=80).vocab_size == 80
    with pytest.raises(UserError, match="'nono'"):
        presets.model_preset("nono")
