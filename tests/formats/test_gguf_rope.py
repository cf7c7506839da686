"""RoPE's keys of a GGUF in every combination: llama.cpp's angles, or a refusal.

The reference below follows llama.cpp's own three places step by step: its loader (defaults, the old key), its context
(which type scales, when YaRN is on, its attention factor) and ggml's rope_yarn (the ramp), in scalars.
"""

import itertools
import json
import math

import numpy as np
import pytest

from nano_llama.core.config import RopeScaling
from nano_llama.core.errors import ConfigError
from nano_llama.core.rope import rope_frequencies
from nano_llama.formats.gguf_config import config_from_gguf
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.gguf_rope import OWN_ROPE_KEY, rope_to_gguf
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf

HEADS, CONTEXT = 2, 64
LLAMA3 = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}  # fmt: skip


def read(path, keys, divisors=None, head_dim=16):
    """The config of a file with these keys; what is absent is None."""
    metadata = {
        "general.architecture": "llama", "llama.context_length": CONTEXT, "llama.embedding_length": HEADS * head_dim,
        "llama.block_count": 1, "llama.feed_forward_length": 32, "llama.attention.head_count": HEADS,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.rope.freq_base": 10000.0,
    }  # fmt: skip
    metadata |= {key: value for key, value in keys.items() if value is not None}
    arrays = {"token_embd.weight": np.zeros((8, HEADS * head_dim), np.float32)}
    if divisors is not None:
        arrays["rope_freqs.weight"] = np.asarray(divisors, np.float32)
    plan = [PlannedTensor(name, "F32", array.shape, lambda array=array: array) for name, array in arrays.items()]
    write_gguf(path / "a.gguf", metadata, plan)
    return config_from_gguf(GGUFFile(path / "a.gguf"))


def llama_cpp(keys, divisors, head_dim) -> tuple[list[float], float]:
    """-> radians per position of each pair, factor on cos and sin."""
    given = {key: value for key, value in keys.items() if value is not None}
    # the loader
    kind = given.get("llama.rope.scaling.type", "linear")
    ropescale = 0.0
    if "llama.rope.scaling.factor" in given:
        ropescale = given["llama.rope.scaling.factor"]
    elif "llama.rope.scale_linear" in given:
        ropescale = given["llama.rope.scale_linear"]
    freq_scale = 1.0 if ropescale == 0 else 1 / ropescale
    n_ctx_orig = given.get("llama.rope.scaling.original_context_length", CONTEXT)
    rope_attn_factor = given.get("llama.rope.scaling.attn_factor", 1.0)
    ext_factor = given.get("llama.rope.scaling.yarn_ext_factor", -1.0)
    beta_fast = given.get("llama.rope.scaling.yarn_beta_fast", 32.0)
    beta_slow = given.get("llama.rope.scaling.yarn_beta_slow", 1.0)
    # the context
    n_ctx_orig = n_ctx_orig if n_ctx_orig != 0 else CONTEXT
    if kind == "none":
        freq_scale = 1.0
    if ext_factor < 0:
        ext_factor = 1.0 if kind == "yarn" else 0.0
    attn_factor = 1.0
    if ext_factor != 0:
        factor = 1 / freq_scale
        attn_factor = 1.0 if factor <= 1 else 0.1 * math.log(factor) + 1
        attn_factor *= 1 / (1 + 0.1 * math.log(factor))
    attn_factor *= rope_attn_factor

    # ggml
    def corr_dim(rotations):
        return head_dim * math.log(n_ctx_orig / (rotations * 2 * math.pi)) / (2 * math.log(10000.0))

    low = max(0, math.floor(corr_dim(beta_fast)))
    high = min(head_dim - 1, math.ceil(corr_dim(beta_slow)))
    frequencies = []
    for pair in range(head_dim // 2):
        extrapolated = 10000.0 ** (-2 * pair / head_dim) / (1 if divisors is None else float(divisors[pair]))
        theta = freq_scale * extrapolated
        mscale = attn_factor
        if ext_factor != 0:
            y = (pair - low) / max(0.001, high - low)
            mix = (1 - min(1, max(0, y))) * ext_factor
            theta = theta * (1 - mix) + extrapolated * mix
            mscale *= 1 + 0.1 * math.log(1 / freq_scale)
        frequencies.append(theta)
    return frequencies, mscale


def divisors_of(kind, head_dim):
    if kind is None:
        return None
    if kind == "llama3":
        shape = {"head_dim": head_dim, "rope_scaling": RopeScaling(**LLAMA3)}
        return rope_to_gguf(make_config(**shape))[1]["rope_freqs.weight"]
    return np.full(head_dim // 2, float(kind), np.float32)


def make_config(head_dim=16, **fields):
    from nano_llama.core.config import LlamaConfig

    return LlamaConfig(
        vocab_size=8, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=HEADS,
        head_dim=head_dim, max_position_embeddings=CONTEXT, **fields,
    )  # fmt: skip


VALUES = {
    "llama.rope.scaling.type": (None, "none", "linear", "yarn"),
    "llama.rope.scaling.factor": (None, 0.0, 1.0, 4.0, 0.5),
    "llama.rope.scale_linear": (None, 2.0),
    "llama.rope.scaling.original_context_length": (None, 0, 16, 2048),
    "llama.rope.scaling.yarn_ext_factor": (None, -1.0, 0.0, 1.0),
    "llama.rope.scaling.attn_factor": (None, 1.0, 1.25, 0.0),
    "llama.rope.scaling.yarn_beta_fast": (None, 16.0, 1.0),
    "llama.rope.scaling.yarn_beta_slow": (None, 2.0, 32.0),
    "divisors": (None, 1, 3, "llama3"),
}


def combinations():
    """Every pair of two keys' values with the others absent, and 500 of all."""
    absent = dict.fromkeys(VALUES)
    for one, other in itertools.combinations(VALUES, 2):
        for a, b in itertools.product(VALUES[one], VALUES[other]):
            yield absent | {one: a, other: b}
    rng = np.random.default_rng(0)
    for _ in range(500):
        yield {key: values[rng.integers(len(values))] for key, values in VALUES.items()}


@pytest.mark.parametrize("head_dim", [16, 64])
def test_every_combination_gives_llama_cpps_angles_or_is_refused(tmp_path, head_dim):
    read_ones = 0
    for keys in combinations():
        given = {key: value for key, value in keys.items() if key != "divisors"}
        divisors = divisors_of(keys["divisors"], head_dim)
        try:
            found, scale = rope_frequencies(read(tmp_path, given, divisors, head_dim))
        except ConfigError:
            continue
        read_ones += 1
        wanted, wanted_scale = llama_cpp(given, divisors, head_dim)
        assert np.allclose(found, wanted, rtol=1e-4, atol=0), keys
        assert scale == pytest.approx(wanted_scale, rel=1e-5), keys
    assert read_ones > 300  # it does not refuse them all


FACTOR, TYPE = "llama.rope.scaling.factor", "llama.rope.scaling.type"


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, None),
        ({FACTOR: 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"llama.rope.scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({FACTOR: 4.0, "llama.rope.scale_linear": 2.0}, {"rope_type": "linear", "factor": 4.0}),
        ({FACTOR: 0.0, "llama.rope.scale_linear": 2.0}, None),
        ({TYPE: "none", FACTOR: 4.0}, None),
        ({TYPE: "none", "llama.rope.scale_linear": 4.0}, None),
        ({TYPE: "yarn", "llama.rope.scale_linear": 4.0}, "yarn"),
        ({TYPE: "linear", FACTOR: 4.0, "llama.rope.scaling.yarn_ext_factor": 1.0}, "yarn"),
        ({TYPE: "yarn", FACTOR: 4.0, "llama.rope.scaling.original_context_length": 0}, "yarn"),
        ({TYPE: "yarn", FACTOR: 4.0, "llama.rope.scaling.finetuned": True}, "yarn"),
    ],
)
def test_what_is_read(tmp_path, keys, wanted):
    found = read(tmp_path, keys).rope_scaling
    if wanted == "yarn":
        wanted = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": CONTEXT}
    assert (found and found.to_dict()) == wanted


def test_yarn_with_an_attention_factor_of_its_own(tmp_path):
    keys = {TYPE: "yarn", FACTOR: 4.0, "llama.rope.scaling.attn_factor": 1.25}
    assert rope_frequencies(read(tmp_path, keys))[1] == pytest.approx(1.25 * (0.1 * math.log(4) + 1))


def test_divisors_and_a_factor_multiply(tmp_path):
    found = read(tmp_path, {FACTOR: 4.0}, divisors_of(3, 16)).rope_scaling
    assert found == RopeScaling(rope_type="linear", factor=12.0)
    with pytest.raises(ConfigError, match="angles"):
        read(tmp_path, {FACTOR: 4.0}, divisors_of("llama3", 64), 64)


@pytest.mark.parametrize("key", [FACTOR, "llama.rope.scaling.yarn_beta_fast", "llama.rope.freq_base"])
@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e-38, 1.0, 3e38])
@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_strange_numbers_are_refused_or_read_never_an_error_of_ours(tmp_path, key, value, kind):
    try:
        config = read(tmp_path, {TYPE: kind, FACTOR: 4.0} | {key: value})
    except ConfigError:
        return
    assert np.isfinite(rope_frequencies(config)[0]).all()


@pytest.mark.parametrize("own", ["{", "[1]", json.dumps({"rope_type": "dynamic", "factor": 2.0}), "null", "3"])
def test_our_own_key_cannot_contradict_the_divisors(tmp_path, own):
    try:
        config = read(tmp_path, {OWN_ROPE_KEY: own}, divisors_of("llama3", 64), 64)
    except ConfigError:
        return
    assert config.rope_scaling == RopeScaling(**LLAMA3)
