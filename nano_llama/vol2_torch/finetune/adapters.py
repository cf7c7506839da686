"""Put adapters onto a model, take them off again, or merge them into its weights.

Tests: tests/vol2/finetune/test_lora.py.
"""

import torch
from torch import nn

from nano_llama.core.errors import UserError
from nano_llama.core.lora import LoraConfig, adapted_modules, adapter_shapes, init_lora_matrices
from nano_llama.vol2_torch.finetune.quantized_base import dequantize
from nano_llama.vol2_torch.lora_linear import LoraLinear
from nano_llama.vol2_torch.model import Llama, to_tensor
from nano_llama.vol2_torch.quantized_linear import QuantizedLinear, QuantizedMatrix


def apply_lora(model: Llama, lora: LoraConfig, *, seed: int = 0) -> Llama:
    """Freeze the model and put a fresh adapter beside each target matrix; returns the model.

    Its outputs do not change: B is zero. What is trained from here on is adapter_params(model). A tied model's head may
    be adapted: its embedding stays as it is. Raises UserError where the model already has an adapter.
    """
    if adapted_layers(model):
        raise UserError("The model already has an adapter.", hint="Call merge_lora or remove_lora first.")
    model.requires_grad_(False)
    for module in adapted_modules(lora, model.config):
        base = (
            model.model.embed_tokens if module == "lm_head" and model.lm_head is None else model.get_submodule(module)
        )
        assert isinstance(base.weight, nn.Parameter | QuantizedMatrix)
        _replace(model, module, LoraLinear(base.weight, lora).train(model.training))
    fresh = init_lora_matrices(lora, model.config, seed)
    with torch.no_grad():
        for name, parameter in adapter_params(model).items():
            if name in fresh:
                parameter.copy_(to_tensor(fresh[name]))
    return model


def round_frozen(model: Llama, dtype: torch.dtype) -> Llama:
    """Hold the layers' matrices beneath the adapter in the type that products under autocast read; returns the model.

    They are rounded to it there anyway, every time. In bfloat16 they take half the memory. The head stays as it is: its
    adapter is merged into it.
    """
    for module, layer in adapted_layers(model).items():
        if isinstance(layer.weight, nn.Parameter) and module != "lm_head":
            layer.weight = nn.Parameter(layer.weight.to(dtype), requires_grad=False)
    return model


def remove_lora(model: Llama) -> Llama:
    """The model as it was before apply_lora, with the same parameter objects, all trainable again; returns it.

    Quantized matrices have no parameters and stay frozen.
    """
    for module, layer in adapted_layers(model).items():
        tied_head = module == "lm_head" and model.config.tie_word_embeddings
        _replace(model, module, None if tied_head else _linear(layer.weight))
    return model.requires_grad_(True)


@torch.no_grad()
def merge_lora(model: Llama) -> Llama:
    """Add the adapter into the weights, which gives an ordinary model with the same outputs; returns it.

    The sum is made in the adapter's precision and rounded once, to the weight's own type. In bfloat16 that loses what
    is smaller than 1/256 of a weight: merge into a float32 model where it matters. A tied model whose head is adapted
    gets a head of its own, since head and embedding now differ: its config says tie_word_embeddings = false.
    A quantized base is dequantized first, all of it, with a warning: its blocks could not hold the sum.
    """
    layers = adapted_layers(model)
    if not layers:
        raise UserError("The model has no adapter to merge.", hint="Call apply_lora or load_adapter first.")
    dequantize(model)
    for module, layer in layers.items():
        assert isinstance(layer.weight, nn.Parameter)
        if module == "lm_head" and model.config.tie_word_embeddings:
            model.config = model.config.replace(tie_word_embeddings=False)
            layer.weight = nn.Parameter(layer.weight.clone())
        layer.weight.copy_(layer.merged_weight())
    return remove_lora(model)


def adapted_layers(model: Llama) -> dict[str, LoraLinear]:
    """module -> its adapted layer, as they are now."""
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLinear)}


def adapter_config(model: Llama) -> LoraConfig:
    """The settings that the model's adapter was made with. Raises UserError where it has none."""
    for layer in adapted_layers(model).values():
        return layer.lora
    raise UserError("The model has no adapter.", hint="Call apply_lora or load_adapter first.")


def adapter_params(model: Llama) -> dict[str, nn.Parameter]:
    """name -> parameter of the adapter, in core/lora.py's names and order: all that an optimizer is to see."""
    return {name: model.get_parameter(name) for name in adapter_shapes(adapter_config(model), model.config)}


def _replace(model: Llama, module: str, layer: nn.Module | None) -> None:
    parent, _, child = module.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def _linear(weight: nn.Parameter | QuantizedMatrix) -> nn.Linear | QuantizedLinear:
    """An ordinary layer around the same parameter, or a quantized one around the same blocks."""
    if isinstance(weight, QuantizedMatrix):
        return QuantizedLinear(weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = weight
    return layer
