"""A model and its adapter as one: merged tensor by tensor, rounded once, all else as the base has it.

The volumes' logits of such a model: tests/parity/test_merged.py.
"""

import numpy as np
import pytest

from helpers.adapters import random_adapter
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.lora import TARGETS, LoraConfig, merged_weight
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.formats import open_weights, save_gguf, save_hf
from nano_llama.formats.dtypes import DTYPES, dtype_name
from nano_llama.formats.merged import open_merged
from nano_llama.formats.peft import WEIGHTS, save_adapter_files
from nano_llama.formats.safetensors import SafetensorsFile, save_safetensors

UP, DOWN = "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj"
KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}


@pytest.fixture
def saved(tmp_path, tiny_config, random_weights):
    """Writes a base and an adapter of it; returns their paths, the base's config and both their tensors."""

    def make(dtype="F32", tied=False, save=save_hf, targets=TARGETS, adapter_dtype=np.float32, **kind):
        config = tiny_config(tied=tied, hidden_size=96, intermediate_size=64)
        lora = LoraConfig(r=3, alpha=5, target_modules=targets, **kind)
        save(tmp_path / "base", config, random_weights(config), dtype=dtype)
        with open_weights(tmp_path / "base") as base:
            weights = {name: np.array(base[name]) for name in base}
        tensors = random_adapter(lora, config, weights, dtype=adapter_dtype)
        save_adapter_files(tmp_path / "adapter", lora, tensors)
        return tmp_path / "base", tmp_path / "adapter", lora, weights, tensors

    return make


def expected_of(module, lora, weights, tensors):
    W = weights[f"{module}.weight"] if f"{module}.weight" in weights else weights[EMBED]
    parts = (tensors.get(f"{module}.{part}") for part in ("lora_A", "lora_B", "lora_magnitude_vector"))
    return merged_weight(W, lora, *parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stored", ["F64", "F32", "BF16", "F16"])
def test_adapted_matrices_have_the_bases_type_and_all_else_its_bits(saved, same_tensors, stored, kind):
    base, adapter, lora, weights, tensors = saved(stored, targets=("up_proj",), **KINDS[kind])
    with open_merged(base, adapter) as merged:
        adapted = {f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 1)}
        expected = {
            name: expected_of(name.removesuffix(".weight"), lora, weights, tensors).astype(DTYPES[stored])
            if name in adapted
            else array
            for name, array in weights.items()
        }
        same_tensors(merged, expected)
        for name in merged:
            assert dtype_name(merged[name].dtype) == merged.dtype_name(name) == stored
            assert merged[name].shape == merged.shape(name) and merged[name].nbytes == merged.nbytes(name)
            assert np.array_equal(merged[name], weights[name]) == (name not in adapted), name


def test_a_wider_type_than_the_bases_keeps_what_rounding_loses(saved):
    base, adapter, lora, weights, tensors = saved("BF16")
    with open_merged(base, adapter, dtype="float32") as merged:
        assert merged.dtype_name(f"{UP}.weight") == "F32" and merged.dtype_name(EMBED) == "BF16"
        np.testing.assert_array_equal(merged[f"{UP}.weight"], expected_of(UP, lora, weights, tensors))
        assert not np.array_equal(merged[f"{UP}.weight"], merged[f"{UP}.weight"].astype(DTYPES["BF16"]))


def test_float64_is_exact(saved):
    base, adapter, _, weights, tensors = saved("F64", adapter_dtype=np.float64)
    W, A, B = weights[f"{DOWN}.weight"], tensors[f"{DOWN}.lora_A"], tensors[f"{DOWN}.lora_B"]
    with open_merged(base, adapter) as merged:
        np.testing.assert_allclose(merged[f"{DOWN}.weight"], W + 5 / 3 * B @ A, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("tied", [False, True])
def test_a_tied_head_is_merged_without_its_embedding(saved, tmp_path, tied):
    base, adapter, lora, weights, tensors = saved(tied=tied)
    with open_merged(base, adapter) as merged:
        assert not merged.config.tie_word_embeddings and list(merged)[-1] == LM_HEAD
        np.testing.assert_array_equal(merged[EMBED], weights[EMBED])
        np.testing.assert_array_equal(merged[LM_HEAD], expected_of("lm_head", lora, weights, tensors))
        save_hf(tmp_path / "out", merged.config, merged)
    with open_weights(tmp_path / "out") as again:
        assert not again.config.tie_word_embeddings and not np.array_equal(again[EMBED], again[LM_HEAD])


def test_a_tied_model_stays_tied_where_its_head_is_not_adapted(saved):
    base, adapter, *_ = saved(tied=True, targets=("q_proj",))
    with open_merged(base, adapter) as merged, open_weights(base) as before:
        assert merged.config == before.config and merged.keys() == before.keys()


def test_a_quantized_base_is_merged_in_float32_and_hands_out_its_other_blocks(saved):
    base, adapter, lora, weights, tensors = saved("Q4_1", save=save_gguf, targets=("up_proj", "q_proj"))
    with open_merged(base, adapter) as merged, open_weights(base) as before:
        assert merged.dtype_name(f"{UP}.weight") == "F32" and merged.dtype_name(f"{DOWN}.weight") == "Q4_1"
        np.testing.assert_array_equal(merged[f"{UP}.weight"], expected_of(UP, lora, weights, tensors))
        np.testing.assert_array_equal(merged.raw(f"{DOWN}.weight").blocks, before.raw(f"{DOWN}.weight").blocks)
        k_proj = "model.layers.0.self_attn.k_proj.weight"
        np.testing.assert_array_equal(merged.row_order(k_proj), before.row_order(k_proj))
        with pytest.raises(UserError, match="no quantized blocks"):
            merged.raw(f"{UP}.weight")


def test_an_adapter_of_another_model_is_refused(saved, tmp_path, tiny_config, random_weights):
    base, adapter, *_ = saved()
    other = tiny_config(hidden_size=96, intermediate_size=80)
    save_hf(tmp_path / "other", other, random_weights(other))
    with pytest.raises(FormatError, match=r"lora_A|lora_B"):
        open_merged(tmp_path / "other", adapter)
    with pytest.raises(UserError, match="No adapter at"):
        open_merged(base, tmp_path / "nowhere")
    with pytest.raises(UserError, match="is not an adapter"):
        open_merged(base, base)


@pytest.mark.parametrize("tied", [False, True])
def test_a_repeated_head_must_be_the_bases(saved, tied):
    base, adapter, _, weights, _ = saved(tied=tied)
    tensors = dict(SafetensorsFile(adapter / WEIGHTS))
    head = weights[EMBED if tied else LM_HEAD]
    for stored in (head, head.astype(DTYPES["BF16"])):  # as trained in float32, and in bfloat16
        save_safetensors(adapter / WEIGHTS, tensors | {"base_model.model.lm_head.base_layer.weight": stored})
        open_merged(base, adapter).close()
    save_safetensors(adapter / WEIGHTS, tensors | {"base_model.model.lm_head.base_layer.weight": head + 1})
    with pytest.raises(FormatError, match="base_layer"):
        open_merged(base, adapter)


def test_what_would_become_infinite_is_refused(saved):
    base, adapter, lora, _, tensors = saved("F16")
    save_adapter_files(adapter, lora, tensors | {f"{UP}.lora_B": np.full((64, 3), 1e6, np.float32)})
    with open_merged(base, adapter) as merged, pytest.raises(UserError, match="too large for F16"):
        merged[f"{UP}.weight"]
