"""A merged model in Volumes 1 and 2 against Volume 2 with the adapter beside its base."""

import numpy as np
import pytest

from helpers.adapters import random_adapter

torch = pytest.importorskip("torch")

from nano_llama import vol1_numpy, vol2_torch  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.formats.peft import save_adapter_files  # noqa: E402
from nano_llama.vol2_torch.finetune import load_adapter, merge_lora  # noqa: E402

KINDS = {"lora": {}, "rslora": {"rslora": True}, "dora": {"dora": True}}
TEXT = np.arange(60).reshape(2, 30)


def relative_error(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.fixture
def saved(tmp_path, tiny_config):
    def make(dtype="F32", tied=False, targets=TARGETS, **kind):
        config = tiny_config(tied=tied)
        weights = init_params(config, seed=1, dtype=np.float64)
        lora = LoraConfig(r=3, alpha=5, target_modules=targets, **kind)
        save_hf(tmp_path / "base", config, weights, dtype=dtype)
        save_adapter_files(tmp_path / "adapter", lora, random_adapter(lora, config, weights, dtype=np.float64))
        return tmp_path / "base", tmp_path / "adapter"

    return make


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tied", "targets"), [(False, TARGETS), (True, TARGETS), (True, LAYER_TARGETS)])
@pytest.mark.parametrize(("dtype", "bound"), [("float64", 1e-12), ("float32", 1e-5)])
def test_logits_agree(saved, kind, tied, targets, dtype, bound):
    base, adapter = saved("F64", tied, targets, **KINDS[kind])
    two = {"dtype": getattr(torch, dtype)}
    with torch.no_grad():
        text = torch.from_numpy(TEXT)
        beside = load_adapter(vol2_torch.Llama.from_pretrained(base, **two), adapter)
        expected = beside(text).numpy()
        assert relative_error(vol2_torch.Llama.from_pretrained(base, **two)(text).numpy(), expected) > 0.1
        merged = vol2_torch.Llama.from_pretrained(base, adapter=adapter, **two)
        assert merged(text).numpy().dtype == dtype
        assert relative_error(merged(text).numpy(), expected) < bound
    one = vol1_numpy.Llama.from_pretrained(base, dtype, adapter=adapter)
    assert relative_error(one.forward(TEXT), expected) < bound


@pytest.mark.parametrize("kind", KINDS)
def test_volume_2_merges_to_the_same_bfloat16(saved, kind):
    """Both round the float32 sum, which may differ in its last bit: then by one bfloat16 step in few weights."""
    base, adapter = saved("BF16", **KINDS[kind])
    by_file = vol2_torch.Llama.from_pretrained(base, dtype=torch.bfloat16, adapter=adapter).named_params()
    in_memory = merge_lora(load_adapter(vol2_torch.Llama.from_pretrained(base, dtype=torch.bfloat16), adapter))
    for name, weight in in_memory.named_params().items():
        differs = weight != by_file[name]
        assert differs.float().mean() < 1e-2, name
        assert torch.allclose(weight.float(), by_file[name].float(), rtol=2**-7, atol=0), name
