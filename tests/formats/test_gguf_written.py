"""A GGUF is read back before it takes its name: what it cannot hold is refused, and what is read is what was meant."""

import warnings

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.core.rope import rope_frequencies
from nano_llama.formats import GGUFFile, open_weights, read_config, save_gguf
from nano_llama.formats import gguf as gguf_module


class Words:
    """A tokenizer of so many words, with roles."""

    def __init__(self, size, **roles):
        self.metadata = {"tokenizer.ggml.model": "none", "tokenizer.ggml.tokens": [f"w{n}" for n in range(size)]}
        self.metadata |= {f"tokenizer.ggml.{key}": value for key, value in roles.items()}

    def to_gguf(self, vocab_size):
        return self.metadata


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"tied": True},
        {"head_dim": 12},
        {"rms_norm_eps": 3e-7, "rope_theta": 123456.789},
        {"hidden_size": 60, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 16},
        {"bos_token_id": -1, "pad_token_id": -1},
        {"eos_token_id": (5, 6, 7)},
        {"rope_scaling": {"rope_type": "linear", "factor": 1.0}},
        {"rope_scaling": {"rope_type": "linear", "factor": 3.3}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 32}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 7.7, "original_max_position_embeddings": 2048}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 9, "beta_fast": 0.5}},
        {
            "rope_scaling": {
                "rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 65536, "beta_fast": 1.0,
                "beta_slow": 32.0,
            }
        },
        {
            "rope_scaling": {
                "rope_type": "llama3", "factor": 2.5, "original_max_position_embeddings": 32, "low_freq_factor": 0.5,
                "high_freq_factor": 9.0,
            }
        },
    ],
    ids=str,
)  # fmt: skip
def test_what_is_written_is_what_was_meant_or_refused(tmp_path, tiny_config, random_weights, shape):
    config = tiny_config(**shape)
    try:
        save_gguf(tmp_path / "m.gguf", config, random_weights(config), dtype="F32")
    except UserError as error:
        assert "GGUF cannot hold" in error.message
        assert not list(tmp_path.iterdir())
        return
    found = read_config(tmp_path / "m.gguf")
    assert np.allclose(rope_frequencies(found)[0], rope_frequencies(config)[0], rtol=1e-5, atol=0)
    assert rope_frequencies(found)[1] == pytest.approx(rope_frequencies(config)[1], rel=1e-5)
    assert found.eos_token_ids == config.eos_token_ids
    assert found.rms_norm_eps == pytest.approx(config.rms_norm_eps, rel=1e-6)


def test_a_file_that_reads_back_otherwise_never_takes_its_name(tmp_path, tiny_config, random_weights, monkeypatch):
    config = tiny_config()
    (tmp_path / "m.gguf").write_bytes(b"what was here before")

    def other(config, name, real=gguf_module.config_to_gguf):
        metadata, tensors = real(config, name)
        return metadata | {"llama.rope.freq_base": 77.0}, tensors

    monkeypatch.setattr(gguf_module, "config_to_gguf", other)
    with pytest.raises(UserError, match=r"rope_theta = 10000.0 would be read as 77\.0"):
        save_gguf(tmp_path / "m.gguf", config, random_weights(config))
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"what was here before"]


def test_a_tokenizer_of_another_size_is_refused_or_warned_about(tmp_path, tiny_config, random_weights):
    config = tiny_config()
    with pytest.raises(UserError, match=r"102 tokens.*101 rows"):
        save_gguf(tmp_path / "m.gguf", config, random_weights(config), tokenizer=Words(config.vocab_size + 1))
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match=r"100 tokens.*101 rows"):
        save_gguf(tmp_path / "m.gguf", config, random_weights(config), tokenizer=Words(config.vocab_size - 1))


@pytest.mark.parametrize(
    ("of_config", "of_tokenizer", "wanted"),
    [
        ((2, 7, 9), 7, {2, 7, 9}),
        ((2,), 7, {2, 7}),
        ((2, 7), 9, {2, 7, 9}),
        (None, 7, {7}),
        ((2, 7), None, {2, 7}),
        ((2, 999), 7, {2, 7}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*999")
def test_no_id_that_ends_a_text_is_lost(tmp_path, tiny_config, random_weights, of_config, of_tokenizer, wanted):
    config = tiny_config(eos_token_id=of_config)
    roles = {} if of_tokenizer is None else {"eos_token_id": of_tokenizer}
    tokenizer = Words(config.vocab_size, **roles)
    save_gguf(tmp_path / "m.gguf", config, random_weights(config), tokenizer=tokenizer)
    assert set(read_config(tmp_path / "m.gguf").eos_token_ids) == wanted
    if of_tokenizer is not None:
        assert GGUFFile(tmp_path / "m.gguf").metadata["tokenizer.ggml.eos_token_id"] == of_tokenizer


def test_more_ends_than_gguf_has_keys_are_refused(tmp_path, tiny_config, random_weights):
    config = tiny_config(eos_token_id=(2, 7, 9))
    with pytest.raises(UserError, match="at most 3"):
        save_gguf(
            tmp_path / "m.gguf", config, random_weights(config), tokenizer=Words(config.vocab_size, eos_token_id=11)
        )


def test_an_id_beyond_the_vocabulary_is_not_written(tmp_path, tiny_config, random_weights):
    config = tiny_config(eos_token_id=999)
    with pytest.warns(UserWarning, match="eos_token_id = 999 is not written"):
        save_gguf(tmp_path / "m.gguf", config, random_weights(config))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_weights(tmp_path / "m.gguf").config.eos_token_id is None
