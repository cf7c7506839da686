"""GGUF metadata <-> LlamaConfig: every RoPE kind, and the refusals of what the format or we cannot hold."""

import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig, RopeScaling
from nano_llama.core.errors import ConfigError, FormatError, UserError
from nano_llama.core.rope import rope_frequencies
from nano_llama.formats import GGUFFile, read_config, save_gguf
from nano_llama.formats.gguf_config import config_to_gguf
from nano_llama.formats.gguf_rope import OWN_ROPE_KEY
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf

DEFAULT = {"initializer_range": 0.02}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}


@pytest.fixture
def saved(tmp_path, tiny_config, random_weights):
    """Writes a tiny model, with its metadata or tensors changed; returns the path."""

    def make(changes=None, tensors=None, **shape):
        config = tiny_config(**shape)  # GGUF has no initializer_range, which is for fresh weights only
        save_gguf(tmp_path / "whole.gguf", config, random_weights(config), dtype="F32")
        file = GGUFFile(tmp_path / "whole.gguf")
        metadata = {**file.metadata, **(changes or {})}
        metadata = {key: value for key, value in metadata.items() if value is not None}
        arrays = {name: file.blocks(name).view("<f4").reshape(info.shape) for name, info in file.tensors.items()}
        arrays = {name: array for name, array in {**arrays, **(tensors or {})}.items() if array is not None}
        plan = [PlannedTensor(name, "F32", array.shape, lambda array=array: array) for name, array in arrays.items()]
        write_gguf(tmp_path / "m.gguf", metadata, plan)
        return tmp_path / "m.gguf"

    return make


@pytest.mark.parametrize("attention", ["mha", "gqa", "mqa"])
@pytest.mark.parametrize("rope", ["default", "linear", "yarn", "llama3"])
def test_a_config_survives_the_round_trip(saved, tiny_config, attention, rope):
    shape = {"attention": attention, "rope": rope, **DEFAULT, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    assert read_config(saved(**shape)) == tiny_config(**shape)


@pytest.mark.parametrize(
    "fields",
    [
        {"head_dim": 12},
        {"tied": True},
        {"eos_token_id": (2, 7, 9)},
        {"rms_norm_eps": 1e-6, "rope_theta": 500000.0},
        {"rope_scaling": {**YARN, "beta_fast": 16.0, "beta_slow": 2.0}},
    ],
)
def test_less_common_fields_survive_too(saved, tiny_config, fields):
    assert read_config(saved(**fields)) == tiny_config(**fields, **DEFAULT)


def test_published_llama3_divisors_are_recognised_without_our_key(saved):
    scaling = {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    shape = {"rope_scaling": scaling, "rope_theta": 500000.0, "head_dim": 64}
    path = saved({OWN_ROPE_KEY: None}, **shape)
    found = read_config(path)
    assert found.rope_scaling == RopeScaling(**scaling)
    divisors = GGUFFile(path).blocks("rope_freqs.weight").view("<f4")[0]
    plain = rope_frequencies(found.replace(rope_scaling=None))[0]
    assert np.allclose(plain / divisors, rope_frequencies(found)[0], rtol=1e-6)


def test_divisors_of_one_mean_no_scaling(saved):
    assert read_config(saved(tensors={"rope_freqs.weight": np.ones(4, np.float32)})).rope_scaling is None


@pytest.mark.parametrize(
    "divisors", [[1, 2, 3, 4], [0, 1, 1, 1], [np.nan, 1, 1, 1], [-1, 1, 1, 1], [1, 1, 1]]
)  # fmt: skip
def test_strange_divisors_are_refused(saved, divisors):
    with pytest.raises(ConfigError, match="rope_freqs"):
        read_config(saved(tensors={"rope_freqs.weight": np.array(divisors, np.float32)}))


def test_the_key_of_2023_for_linear_scaling(saved):
    assert read_config(saved({"llama.rope.scale_linear": 4.0})).rope_scaling == RopeScaling(
        rope_type="linear", factor=4.0
    )


def test_defaults_of_absent_keys(saved, tiny_config):
    absent = [
        "attention.head_count_kv",
        "attention.key_length",
        "attention.value_length",
        "rope.dimension_count",
        "rope.freq_base",
    ]
    found = read_config(saved({f"llama.{key}": None for key in absent}, attention="mha"))
    assert found == tiny_config("mha", **DEFAULT)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("general.architecture", "qwen2", "qwen2"),
        ("general.architecture", None, "None"),
        ("general.architecture", 3, "3"),
        ("llama.expert_count", 8, "expert_count = 8"),
        ("llama.attention.sliding_window", 4096, "sliding_window"),
        ("llama.attention.scale", 0.5, "attention.scale"),
        ("llama.final_logit_softcapping", 30.0, "softcapping"),
        ("llama.rope.dimension_count", 4, "rope.dimension_count"),
        ("llama.attention.value_length", 4, "value_length"),
        ("llama.rope.scaling.type", "longrope", "longrope"),
        ("llama.rope.scaling.type", 3, "scaling.type"),
        ("llama.attention.head_count_kv", 4, "num_key_value_heads"),
    ],
)
def test_what_is_not_our_llama_is_refused_by_name(saved, key, value, named):
    with pytest.raises(ConfigError, match=named) as caught:
        read_config(saved({key: value}))
    assert "m.gguf" in str(caught.value)


@pytest.mark.parametrize("value", [None, "4", 4.5, [1, 2], -1, 0, True])
@pytest.mark.parametrize("key", ["block_count", "embedding_length", "attention.head_count", "context_length"])
def test_a_missing_or_mistyped_key_is_named(saved, key, value):
    with pytest.raises((FormatError, ConfigError)) as caught:
        read_config(saved({f"llama.{key}": value}))
    assert "m.gguf" in str(caught.value)


LAYERED = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")


@pytest.mark.parametrize("key", LAYERED)
@pytest.mark.parametrize("dtype", [np.uint32, np.int32, np.uint64])
def test_a_number_for_each_layer_is_read_where_all_are_equal(saved, tiny_config, key, dtype):
    whole = saved(**DEFAULT)
    value = GGUFFile(whole).metadata[f"llama.{key}"]
    layers = tiny_config().num_hidden_layers
    assert read_config(saved({f"llama.{key}": np.full(layers, value, dtype)}, **DEFAULT)) == tiny_config(**DEFAULT)
    with pytest.raises(FormatError, match=key):
        read_config(saved({f"llama.{key}": np.full(layers + 1, value, dtype)}))
    with pytest.raises(ConfigError, match="differs between layers"):
        read_config(saved({f"llama.{key}": np.arange(layers).astype(dtype) + value}))


@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "padding_token_id"])
def test_a_special_id_beyond_the_vocabulary_is_no_token(saved, tiny_config, key):
    found = read_config(saved({f"tokenizer.ggml.{key}": 10**6}, **DEFAULT))
    assert found == tiny_config(**DEFAULT)


def test_a_tokenizer_of_another_size_is_remarked_on(saved, tiny_config):
    tokens = [f"t{number}" for number in range(tiny_config().vocab_size + 1)]
    with pytest.warns(UserWarning, match=r"llama\.cpp does not load"):
        read_config(saved({"tokenizer.ggml.tokens": tokens}))


def make_config(**rope) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=64, rope_scaling=RopeScaling(**rope),
    )  # fmt: skip


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "attention_factor": 1.5},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "truncate": False},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32, "mscale": 1.0},
    ],
)
def test_rope_that_gguf_cannot_hold_is_refused(rope):
    with pytest.raises(UserError, match="GGUF cannot hold"):
        config_to_gguf(make_config(**rope), "m")


def test_more_end_tokens_than_gguf_has_keys_are_refused(tiny_config):
    with pytest.raises(UserError, match="eos_token_id"):
        config_to_gguf(tiny_config(eos_token_id=(1, 2, 3, 4)), "m")


@pytest.mark.parametrize(
    "key", ["general.architecture", "llama.expert_count", "split.count", "llama.rope.scaling.type", "llama.block_count"]
)
def test_an_array_where_one_value_belongs_is_refused(saved, key):
    with pytest.raises((FormatError, ConfigError), match=r"m\.gguf"):
        read_config(saved({key: np.array([1, 2], np.uint32)}))
