"""Adapters as GGUF, read by the `gguf` library. In llama.cpp: tests/formats/test_gguf_llama_cpp.py."""

import dataclasses

import numpy as np
import pytest

from helpers.adapters import random_adapter
from nano_llama.core.errors import UserError
from nano_llama.core.lora import TARGETS, LoraConfig
from nano_llama.formats.dtypes import DTYPES
from nano_llama.formats.gguf_adapter import save_gguf_adapter
from nano_llama.formats.peft import read_adapter, save_adapter_files

gguf = pytest.importorskip("gguf")


@pytest.fixture
def stored(tmp_path, tiny_config, random_weights):
    def make(tied=False, **lora):
        config = tiny_config(tied=tied)
        lora = LoraConfig(**{"r": 3, "alpha": 5, "target_modules": TARGETS, **lora})
        save_adapter_files(tmp_path / "adapter", lora, random_adapter(lora, config, random_weights(config)))
        return read_adapter(tmp_path / "adapter", config), config

    return make


@pytest.mark.parametrize(("rslora", "alpha"), [(False, 5), (True, 5 * 3**0.5)])
def test_metadata_and_names_are_llama_cpps(stored, tmp_path, rslora, alpha):
    """alpha is what llama.cpp divides by the rank, with rsLoRA too."""
    adapter, config = stored(rslora=rslora)
    save_gguf_adapter(tmp_path / "a.gguf", adapter, config)
    file = gguf.GGUFReader(tmp_path / "a.gguf")
    said = {key: file.get_field(key).contents() for key in file.fields if not key.startswith("GGUF.")}
    assert said["adapter.lora.alpha"] == pytest.approx(alpha, rel=1e-6)
    kinds = ("general.type", "general.architecture", "adapter.type")
    assert [said[key] for key in kinds] == ["adapter", "llama", "lora"]
    shapes = {tensor.name: tuple(map(int, reversed(tensor.shape))) for tensor in file.tensors}
    assert len(shapes) == 2 * 15
    assert shapes["blk.1.ffn_down.weight.lora_a"] == (3, 88) and shapes["blk.1.ffn_down.weight.lora_b"] == (48, 3)
    assert shapes["output.weight.lora_b"] == (101, 3) and shapes["blk.0.attn_k.weight.lora_b"] == (16, 3)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_q_and_k_have_ggufs_row_order_and_all_else_ours(stored, tmp_path, dtype):
    """As llama.cpp pairs dimensions 2i and 2i + 1 of a head, and transformers i and i + K/2."""
    adapter, config = stored()
    save_gguf_adapter(tmp_path / "a.gguf", adapter, config, dtype)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    K = config.head_dim
    for theirs, ours in {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "ffn_up": "mlp.up_proj"}.items():
        for part in ("lora_a", "lora_b"):
            found = tensors[f"blk.1.{theirs}.weight.{part}"]
            name = f"model.layers.1.{ours}.{'lora_A' if part == 'lora_a' else 'lora_B'}"
            expected = adapter.tensors[name].astype(DTYPES[dtype])
            if part == "lora_b" and theirs != "ffn_up":
                heads = expected.reshape(-1, 2, K // 2, 3)  # (heads, halves, pairs, r)
                expected = heads.swapaxes(1, 2).reshape(expected.shape)
            assert found.tensor_type.name == dtype
            values = np.asarray(found.data).view(DTYPES[dtype]).reshape(expected.shape)
            np.testing.assert_array_equal(values.astype(np.float32), expected.astype(np.float32), err_msg=name)


def test_what_llama_cpp_does_not_compute_is_refused(stored, tmp_path):
    for tied, lora, said in ((False, {"dora": True}, "DoRA"), (True, {}, "tied head")):
        adapter, config = stored(tied=tied, **lora)
        with pytest.raises(UserError, match=said) as caught:
            save_gguf_adapter(tmp_path / "a.gguf", adapter, config)
        assert "nano-llama merge" in caught.value.hint
    adapter, config = stored()
    with pytest.raises(UserError, match="q8_0"):
        save_gguf_adapter(tmp_path / "a.gguf", adapter, config, "q8_0")
    large = dataclasses.replace(adapter, tensors=adapter.tensors | {"lm_head.lora_B": np.full((101, 3), 1e6)})
    with pytest.raises(UserError, match="too large for F16"):
        save_gguf_adapter(tmp_path / "a.gguf", large, config, "F16")
    assert not (tmp_path / "a.gguf").exists()
