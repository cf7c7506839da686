"""A merged model in all three volumes against Volumes 1 and 2 with the adapter beside its base, and its weights
against PEFT's merge_and_unload.
"""

import numpy as np
import pytest

from helpers.adapters import random_adapter

torch = pytest.importorskip("torch")

from nano_llama import vol1_numpy, vol2_torch  # noqa: E402
from nano_llama.core.init import init_params  # noqa: E402
from nano_llama.core.lora import LAYER_TARGETS, TARGETS, LoraConfig  # noqa: E402
from nano_llama.formats import save_hf  # noqa: E402
from nano_llama.formats.merged import open_merged  # noqa: E402
from nano_llama.formats.peft import save_adapter_files  # noqa: E402
from nano_llama.verify.divergence import prompt_logits  # noqa: E402
from nano_llama.vol1_numpy.finetune import load_adapter as load_by_hand  # noqa: E402
from nano_llama.vol2_torch.finetune import load_adapter, merge_lora  # noqa: E402
from nano_llama.vol3_engine.llm import LLM  # noqa: E402

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
@pytest.mark.parametrize(
    ("dtype", "bound", "tied", "targets"),
    [
        ("float64", 1e-12, False, TARGETS),
        ("float64", 1e-12, True, TARGETS),  # a tied head, adapted without its embedding
        ("float64", 1e-12, True, LAYER_TARGETS),
        ("float32", 1e-5, False, TARGETS),
    ],
)
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
    beside = load_by_hand(vol1_numpy.Llama.from_pretrained(base, dtype), adapter)
    assert relative_error(beside.forward(TEXT), expected) < bound


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_those_that_peft_merges(saved, kind):
    peft = pytest.importorskip("peft")
    base, adapter = saved("F64", **KINDS[kind])
    config = peft.PeftConfig.from_pretrained(adapter)
    config.task_type = None  # ours has no generate() for PEFT to wrap
    model = vol2_torch.Llama.from_pretrained(base, dtype=torch.float64)
    theirs = peft.PeftModel.from_pretrained(model, adapter, config=config, autocast_adapter_dtype=False)
    weights = {name: p.detach().numpy() for name, p in theirs.merge_and_unload().named_parameters()}
    with open_merged(base, adapter) as merged:
        assert weights.keys() == merged.keys()
        for name, expected in weights.items():
            assert relative_error(merged[name], expected) < 1e-13, name


@pytest.mark.parametrize("kind", KINDS)
def test_the_engine_computes_the_merged_folder(saved, tmp_path, kind):
    base, adapter = saved("F32", **KINDS[kind])
    with open_merged(base, adapter) as merged:
        save_hf(tmp_path / "merged", merged.config, merged)
    expected = load_by_hand(vol1_numpy.Llama.from_pretrained(base), adapter).forward(TEXT[:1])[0]
    with LLM(tmp_path / "merged", device="cpu", dtype="float32", kv_cache_memory="16MiB") as llm:
        assert relative_error(prompt_logits(llm, TEXT[0].tolist()), expected) < 1e-5


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
