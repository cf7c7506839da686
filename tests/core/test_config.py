"""LlamaConfig: what it accepts, derives and refuses."""

import dataclasses

import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import ConfigError

SHAPE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}


def test_derived_values():
    config = LlamaConfig(**SHAPE)
    assert config.num_key_value_heads == 4 and config.head_dim == 16 and config.group_size == 1
    assert config.replace(num_key_value_heads=2).group_size == 2
    assert config.replace(head_dim=32).head_dim == 32
    assert config.replace(eos_token_id=[1, 2]).eos_token_ids == (1, 2)
    assert config.replace(eos_token_id=7).eos_token_ids == (7,)


def test_the_repr_makes_an_equal_one_and_is_short():
    config = LlamaConfig(**SHAPE, rope_theta=5e5, tie_word_embeddings=True)
    assert eval(repr(config)) == config
    assert "initializer_range" not in repr(config) and "rope_theta=500000.0" in repr(config)


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
