"""LlamaConfig: what it accepts, derives and refuses; Hugging Face's dictionaries in and out."""

import dataclasses
import warnings

import pytest

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import ConfigError

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
HF = {**SHAPE, "model_type": "llama", "rms_norm_eps": 1e-6}


def test_derived_values():
    config = LlamaConfig(**SHAPE)
    assert config.num_key_value_heads == 4 and config.head_dim == 16 and config.group_size == 1
    assert config.replace(num_key_value_heads=2).group_size == 2
    assert config.replace(head_dim=32).head_dim == 32
    assert config.replace(eos_token_id=[1, 2]).eos_token_ids == (1, 2)
    assert config.replace(eos_token_id=7).eos_token_ids == (7,)


def test_is_frozen_and_refuses_unknown_keys():
    config = LlamaConfig(**SHAPE)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.hidden_size = 3
    with pytest.raises(TypeError, match="hidden_dim"):
        LlamaConfig(**SHAPE, hidden_dim=64)
    with pytest.raises(TypeError):
        LlamaConfig(256, 64)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"vocab_size": 0}, "vocab_size = 0"),
        ({"hidden_size": -64}, "hidden_size = -64"),
        ({"hidden_size": 64.0}, "hidden_size = 64.0"),
        ({"num_hidden_layers": True}, "num_hidden_layers = True"),
        ({"hidden_size": 66}, "not a multiple of num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads = 3"),
        ({"head_dim": 15}, "head_dim = 15"),
        ({"rms_norm_eps": 0}, "rms_norm_eps = 0"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
        ({"rope_theta": "10000"}, "rope_theta = '10000'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings = 'yes'"),
        ({"rope_scaling": {"rope_type": "longrope", "factor": 2}}, "longrope"),
        ({"rope_scaling": {"rope_type": "linear"}}, "needs 'factor'"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0.5}}, "factor = 0.5"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "beta_fast": 3.0}}, "beta_fast"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "original_max_position_embeddings"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "colour": 3}}, "colour"),
        ({"rope_scaling": "linear"}, "rope_scaling = 'linear'"),
        ({"eos_token_id": "</s>"}, "eos_token_id = '</s>'"),
    ],
)
def test_impossible_values_are_named(change, named):
    with pytest.raises(ConfigError) as error:
        LlamaConfig(**{**SHAPE, **change})
    assert named in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_type", "mistral"),
        ("model_type", "gpt2"),
        ("attention_bias", True),
        ("mlp_bias", True),
        ("hidden_act", "gelu"),
        ("rope_interleaved", True),
        ("quantization_config", {"bits": 4}),
        ("sliding_window", 4096),
        ("partial_rotary_factor", 0.5),
        ("rope_scaling", {"type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
    ],
)
def test_what_changes_the_mathematics_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=key):
        LlamaConfig.from_hf_dict({**HF, key: value}) if key != "model_type" else _from_other(value)


def _from_other(kind):
    try:
        LlamaConfig.from_hf_dict({**HF, "model_type": kind})
    except ConfigError as error:
        assert kind in str(error)
        raise


def test_bookkeeping_is_ignored_and_the_unknown_is_warned_about():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LlamaConfig.from_hf_dict({**HF, "torch_dtype": "bfloat16", "transformers_version": "5", "use_cache": True})
    with pytest.warns(UserWarning, match="flux_capacitor"):
        LlamaConfig.from_hf_dict({**HF, "flux_capacitor": 1.21})


def test_missing_fields_are_named():
    with pytest.raises(ConfigError, match="hidden_size"):
        LlamaConfig.from_hf_dict({key: value for key, value in HF.items() if key != "hidden_size"})
    with pytest.raises(ConfigError, match="a JSON object"):
        LlamaConfig.from_hf_dict([])


def test_rope_is_read_in_both_spellings():
    linear = RopeScaling(rope_type="linear", factor=4.0)
    old = LlamaConfig.from_hf_dict({**HF, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 4.0}})
    new = LlamaConfig.from_hf_dict({**HF, "rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}})
    assert old == new and old.rope_scaling == linear and old.rope_theta == 5e5
    plain = LlamaConfig.from_hf_dict({**HF, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})
    assert plain.rope_scaling is None and plain.rope_theta == 1e6


@pytest.mark.parametrize("rope", ["default", "linear", "dynamic", "yarn", "llama3"])
@pytest.mark.parametrize("tied", [False, True])
def test_round_trip_through_our_dictionary_and_transformers(tiny_config, rope, tied):
    config = tiny_config("gqa", tied=tied, rope=rope, eos_token_id=(1, 2), bos_token_id=0)
    assert LlamaConfig.from_hf_dict(config.to_hf_dict()) == config
    transformers = pytest.importorskip("transformers")
    theirs = transformers.LlamaConfig(**config.to_hf_dict())
    back = LlamaConfig.from_hf_dict(theirs.to_dict())
    assert back == config


@pytest.mark.parametrize("field", ["rope_theta", "rms_norm_eps", "initializer_range"])
def test_a_whole_number_beyond_every_float_is_refused(field):
    with pytest.raises(ConfigError, match=f"{field} = 1000"):
        LlamaConfig.from_hf_dict({**HF, field: 10**400})
