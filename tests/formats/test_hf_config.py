"""Hugging Face's config.json: dictionaries in and out, what is refused, ignored and warned about."""

import warnings

import pytest

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import ConfigError

HF = {
    "model_type": "llama",
    "vocab_size": 256,
    "hidden_size": 64,
    "intermediate_size": 172,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
}


@pytest.mark.parametrize(
    ("key", "value"),
    [
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
        LlamaConfig.from_hf_dict({**HF, key: value})


@pytest.mark.parametrize("kind", ["mistral", "gpt2"])
def test_another_architecture_is_refused_by_name(kind):
    with pytest.raises(ConfigError, match=kind):
        LlamaConfig.from_hf_dict({**HF, "model_type": kind})


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
