"""Hugging Face folders: transformers loads what we save, we load what transformers saves, bit for bit."""

import json

import ml_dtypes
import numpy as np
import pytest
import torch

from nano_llama.core.errors import FormatError, UserError
from nano_llama.formats import open_weights, read_config, save_hf

transformers = pytest.importorskip("transformers")

KINDS = [(attention, tied) for attention in ("mha", "gqa", "mqa") for tied in (True, False)]


def their_weights(model) -> dict[str, np.ndarray]:
    """A transformers model's parameters; a tied head, which is the embedding again, left out."""
    state = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    if model.config.tie_word_embeddings:
        state.pop("lm_head.weight", None)
    return state


@pytest.mark.parametrize(("attention", "tied"), KINDS)
def test_transformers_loads_what_we_save(tmp_path, tiny_config, random_weights, same_tensors, attention, tied):
    config = tiny_config(attention, tied, rope="llama3")
    weights = random_weights(config)
    save_hf(tmp_path / "m", config, weights)
    model, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(model).__name__ == "LlamaForCausalLM"
    same_tensors(their_weights(model), weights)
    tokens = torch.arange(7)[None]
    assert torch.isfinite(model(tokens).logits).all()


@pytest.mark.parametrize(("attention", "tied"), KINDS)
@pytest.mark.parametrize("shard", [None, "30KB"])
def test_we_load_what_transformers_saves(tmp_path, tiny_config, same_tensors, attention, tied, shard):
    config = tiny_config(attention, tied)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config.to_hf_dict()))
    theirs.save_pretrained(tmp_path / "m", **({} if shard is None else {"max_shard_size": shard}))
    assert (len(list((tmp_path / "m").glob("*.safetensors"))) > 1) == (shard is not None)
    assert read_config(tmp_path / "m") == config
    same_tensors(open_weights(tmp_path / "m"), their_weights(theirs))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shard_bytes", [10**9, 40_000])
def test_round_trip_is_bit_identical(tmp_path, tiny_config, random_weights, same_tensors, dtype, shard_bytes):
    config = tiny_config(tied=True)
    weights = random_weights(config, dtype=dtype)
    save_hf(tmp_path / "a", config, weights, max_shard_bytes=shard_bytes)
    with open_weights(tmp_path / "a") as first:
        save_hf(tmp_path / "b", read_config(tmp_path / "a"), first, max_shard_bytes=shard_bytes)
    same_tensors(open_weights(tmp_path / "b"), weights)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_shards_respect_the_limit_and_the_index_covers_all(tmp_path, tiny_config, random_weights):
    config = tiny_config()
    save_hf(tmp_path / "m", config, random_weights(config), max_shard_bytes=40_000)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    shards = sorted((tmp_path / "m").glob("*.safetensors"))
    assert set(index["weight_map"].values()) == {shard.name for shard in shards}
    assert all(shard.stat().st_size < 42_000 for shard in shards)  # and a header
    assert index["metadata"]["total_size"] == 4 * config.num_parameters


def test_the_saved_dtype_stands_in_the_config(tmp_path, tiny_config, random_weights):
    config = tiny_config()
    save_hf(tmp_path / "m", config, random_weights(config), dtype="bfloat16")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype="auto")
    assert model.dtype == torch.bfloat16
    assert open_weights(tmp_path / "m").dtype_name("model.norm.weight") == "BF16"


def test_the_end_tokens_reach_generate(tmp_path, tiny_config, random_weights):
    config = tiny_config(eos_token_id=(5, 6), bos_token_id=1)
    save_hf(tmp_path / "m", config, random_weights(config))
    assert read_config(tmp_path / "m").eos_token_id == (5, 6)
    assert transformers.GenerationConfig.from_pretrained(tmp_path / "m").eos_token_id == [5, 6]


def test_an_old_pytorch_model_bin_is_read(tmp_path, tiny_config, random_weights, same_tensors):
    config = tiny_config(tied=True)
    weights = random_weights(config)
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config.to_hf_dict()))
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save(state | {"lm_head.weight": state["model.embed_tokens.weight"]}, folder / "pytorch_model.bin")
    same_tensors(open_weights(folder), weights)


def test_the_tokenizer_is_saved_with_the_model(tmp_path, tiny_config, random_weights):
    class Tokenizer:
        def save_pretrained(self, folder):
            (folder / "tokenizer.json").write_text("{}")

    save_hf(tmp_path / "m", tiny_config(), random_weights(tiny_config()), tokenizer=Tokenizer())
    assert (tmp_path / "m" / "tokenizer.json").is_file()


def test_an_existing_folder_is_not_overwritten(tmp_path, tiny_config, random_weights):
    with pytest.raises(UserError, match="exists"):
        save_hf(tmp_path, tiny_config(), random_weights(tiny_config()))


def test_weights_of_another_config_are_not_saved(tmp_path, tiny_config, random_weights):
    with pytest.raises(FormatError, match="gate_proj"):
        save_hf(tmp_path / "m", tiny_config(intermediate_size=60), random_weights(tiny_config()))
    assert not list(tmp_path.iterdir())
