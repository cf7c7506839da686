"""save_adapter and load_adapter, from model to model. Against PEFT: tests/parity/test_peft.py."""

import pytest

torch = pytest.importorskip("torch")

from helpers.adapters import randomize  # noqa: E402
from nano_llama.core.errors import FormatError, UserError  # noqa: E402
from nano_llama.core.lora import TARGETS  # noqa: E402
from nano_llama.formats.peft import WEIGHTS  # noqa: E402
from nano_llama.formats.safetensors import SafetensorsFile, save_safetensors  # noqa: E402
from nano_llama.vol2_torch import Llama  # noqa: E402
from nano_llama.vol2_torch.finetune import (  # noqa: E402
    LoraConfig,
    adapter_params,
    apply_lora,
    load_adapter,
    save_adapter,
)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dora", [False, True])
def test_saved_and_loaded_gives_the_same_bits(tiny_config, tmp_path, dtype, dora):
    lora = LoraConfig(r=2, dora=dora, dropout=0.1)
    model = apply_lora(Llama.init(tiny_config(), dtype=dtype), lora).eval()
    randomize(adapter_params(model))
    save_adapter(model, tmp_path)
    again = load_adapter(Llama.init(tiny_config(), dtype=dtype), tmp_path).eval()
    text = torch.arange(20)[None]
    assert torch.equal(again(text), model(text))
    params = adapter_params(again)
    assert all(p.requires_grad for p in params.values()) and params.keys() == adapter_params(model).keys()


def test_an_adapter_in_bfloat16_is_saved_too(tiny_config, tmp_path):
    model = apply_lora(Llama.init(tiny_config()), LoraConfig(r=2)).to(torch.bfloat16)
    save_adapter(model, tmp_path)
    again = load_adapter(Llama.init(tiny_config()), tmp_path)
    for name, p in adapter_params(model).items():
        assert torch.equal(adapter_params(again)[name], p.float()), name


@pytest.mark.parametrize("tied", [False, True])
def test_a_repeated_head_must_be_the_models(tiny_config, tmp_path, tied):
    config = tiny_config(tied=tied)
    save_adapter(apply_lora(Llama.init(config), LoraConfig(target_modules=TARGETS)), tmp_path)
    tensors = dict(SafetensorsFile(tmp_path / WEIGHTS))
    head = Llama.init(config).head_weight.detach().numpy()
    save_safetensors(tmp_path / WEIGHTS, tensors | {"base_model.model.lm_head.base_layer.weight": head})
    load_adapter(Llama.init(config), tmp_path)
    model = Llama.init(config, seed=1)
    with pytest.raises(FormatError, match="base_layer"):
        load_adapter(model, tmp_path)
    with pytest.raises(UserError, match="no adapter"):  # and the model is as it was
        adapter_params(model)


def test_a_model_without_adapter_is_not_saved(tiny_config, tmp_path):
    with pytest.raises(UserError, match="no adapter"):
        save_adapter(Llama.init(tiny_config()), tmp_path / "new")
    assert not (tmp_path / "new").exists()
