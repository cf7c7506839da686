"""Hugging Face's config.json: dictionaries in and out, what is refused, ignored and warned about."""

import copy
import json
import warnings

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import ConfigError
from nano_llama.core.init import init_params
from nano_llama.core.rope import rope_frequencies
from nano_llama.formats import read_config, save_hf
from nano_llama.formats.hf_config import transformers_refusals

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


# -- transformers' own reading is the reference ----------------------------------------------------------------------

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
ROPES = {
    "finetuned": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "finetuned": True},
    "yarn without its context": {"rope_type": "yarn", "factor": 4.0},
    "yarn with zeros": {**YARN, "beta_fast": 0, "beta_slow": 0, "mscale": 0, "mscale_all_dim": 0},
    "yarn with one mscale": {**YARN, "mscale": 0.7},
    "yarn with llama3's": {**YARN, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    "yarn with lists": {**YARN, "short_factor": [1.0] * 8, "long_factor": [2.0] * 8},
    "llama3 with yarn's": {**LLAMA3, "beta_fast": 16, "attention_factor": 2.0, "truncate": False},
    "llama3 with its context as a float": {**LLAMA3, "original_max_position_embeddings": 32.0},
    "linear with a context": {"type": "linear", "factor": 2.0, "original_max_position_embeddings": 16},
    "linear with everything": {"type": "linear", "factor": 2.0, **{key: 2.0 for key in ("mscale", "beta_fast", "x")}},
    "dynamic with a context": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 16},
    "dynamic with alpha": {"type": "dynamic", "factor": 2.0, "alpha": 1000.0},
    "default with a factor": {"rope_type": "default", "factor": 8.0},
    "no kind at all": {"factor": 8.0},
    "two kinds": {"rope_type": "linear", "type": "dynamic", "factor": 2.0},
    "a theta of its own": {**YARN, "rope_theta": 5e5},
}
AROUND = ({}, {"rope_theta": 1e6}, {"original_max_position_embeddings": 16})


@pytest.mark.filterwarnings("ignore:.*ignore")
@pytest.mark.parametrize("around", AROUND, ids=str)
@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("name", ROPES)
def test_rope_with_other_keys_turns_as_in_transformers(name, key, around):
    transformers = pytest.importorskip("transformers")
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    raw = {**HF, **around, key: ROPES[name]}
    theirs = LlamaRotaryEmbedding(transformers.LlamaConfig(**copy.deepcopy(raw)))
    ours, scale = rope_frequencies(LlamaConfig.from_hf_dict(raw), HF["max_position_embeddings"])
    assert np.allclose(ours, theirs.inv_freq.numpy(), rtol=1e-5, atol=0)
    assert scale == pytest.approx(theirs.attention_scaling)


def test_what_rope_ignores_is_said():
    with pytest.warns(UserWarning, match="finetuned = True"):
        LlamaConfig.from_hf_dict({**HF, "rope_scaling": ROPES["finetuned"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rope in (YARN, LLAMA3, {"type": "linear", "factor": 2.0}, {"rope_type": "default", "rope_theta": 1e4}):
            LlamaConfig.from_hf_dict({**HF, "rope_scaling": rope})


@pytest.mark.parametrize(
    "rope",
    [
        {"type": "longrope", "factor": 2.0},
        {"type": "mrope", "factor": 2.0},
        {"type": "linear"},
        {"type": "linear", "factor": 0.5},
        {"type": "linear", "factor": "2"},
        {"type": 3, "factor": 2.0},
        {"type": [], "factor": 2.0},
        {**YARN, "attention_factor": 0},
        {**YARN, "original_max_position_embeddings": 32.5},
    ],
    ids=str,
)
def test_rope_that_is_not_computed_is_refused(rope):
    with pytest.raises(ConfigError, match="rope_"):
        LlamaConfig.from_hf_dict({**HF, "rope_scaling": rope})


def test_silu_under_its_other_name():
    assert LlamaConfig.from_hf_dict({**HF, "hidden_act": "swish"}) == LlamaConfig.from_hf_dict(HF)


SHAPES = [
    {},
    {"head_dim": 12},
    {"hidden_size": 60, "num_attention_heads": 8, "head_dim": 16},
    {"num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 6},
    {"initializer_range": 1.5},
    {"initializer_range": 1.0},
    {"pad_token_id": 256},
    {"pad_token_id": 255},
    {"pad_token_id": -1},
    {"pad_token_id": -256},
    {"pad_token_id": -257},
    {"bos_token_id": 999, "eos_token_id": 999},
    {"eos_token_id": (1, 999)},
    {"rms_norm_eps": 1},
    {"rope_theta": 10000},
    {"tie_word_embeddings": True},
    {"vocab_size": 1, "hidden_size": 2, "num_attention_heads": 1, "intermediate_size": 1},
    {"max_position_embeddings": 1},
    {"rope_scaling": {"rope_type": "linear", "factor": 2}},
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_that_transformers_refuses_is_known(shape, tmp_path):
    """What our export warns about is what transformers does not load, and nothing else."""
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    config = LlamaConfig.from_hf_dict({**HF, **shape})
    (tmp_path / "config.json").write_text(json.dumps(config.to_hf_dict()))
    try:
        with torch.device("meta"):
            transformers.LlamaForCausalLM(transformers.AutoConfig.from_pretrained(tmp_path))
        loads = True
    except Exception:
        loads = False
    assert bool(transformers_refusals(config)) == (not loads)


def test_the_export_says_that_transformers_will_not_load_it(tmp_path):
    config = LlamaConfig.from_hf_dict({**HF, "hidden_size": 60, "num_attention_heads": 8, "head_dim": 16})
    with pytest.warns(UserWarning, match="transformers 5 will not load"):
        save_hf(tmp_path / "m", config, init_params(config))
    assert read_config(tmp_path / "m") == config


# -- LLaMA's relatives -----------------------------------------------------------------------------------------------


def test_mistral_is_read_where_it_says_its_window():
    mistral = {**HF, "model_type": "mistral", "num_attention_heads": 8}
    given = LlamaConfig.from_hf_dict({**mistral, "sliding_window": 4096})
    assert given.sliding_window == 4096 and given.num_key_value_heads == 8
    plain = LlamaConfig.from_hf_dict({**HF, "model_type": "mistral", "sliding_window": None, "num_key_value_heads": 4})
    assert plain == LlamaConfig.from_hf_dict(HF) and plain.to_hf_dict()["model_type"] == "llama"
    with pytest.raises(ConfigError, match=r"mistral.*without a sliding_window"):
        LlamaConfig.from_hf_dict({**HF, "model_type": "mistral"})


def test_a_llamas_own_dictionary_has_the_keys_that_it_always_had():
    own = LlamaConfig.from_hf_dict(HF).to_hf_dict()
    assert own["model_type"] == "llama" and own["hidden_act"] == "silu"
    assert not {"sliding_window", "norm_placement"} & own.keys()
