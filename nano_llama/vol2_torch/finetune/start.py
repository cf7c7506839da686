"""The model that a run of Volume 2 begins with, and what is trained of it: all parameters, or an adapter's.

Tests: tests/vol2/finetune/test_start.py.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from nano_llama.core.config import LlamaConfig
from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig
from nano_llama.formats.mapping import TensorMapping, as_mapping
from nano_llama.formats.quantization_scheme import base_kinds
from nano_llama.training.backend import Notice
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.finetune.adapters import adapter_params, apply_lora, round_frozen
from nano_llama.vol2_torch.finetune.quantized_base import quantized_base
from nano_llama.vol2_torch.model import Llama, to_tensor
from nano_llama.vol2_torch.vision.model import VisionLanguageModel
from nano_llama.vol2_torch.vision.train import vision_model_to_train


@torch.no_grad()
def model_to_train(
    settings: TrainSettings, config: ModelConfig, weights: Mapping[str, np.ndarray] | None,
    adapter: Mapping[str, np.ndarray] | None, device: torch.device, products: torch.dtype, notice: Notice,
) -> tuple[Llama | VisionLanguageModel, dict[str, nn.Parameter]]:  # fmt: skip
    """(model, {name: parameter that is trained}).

    weights: None for fresh ones. adapter: where it goes on from; None for a fresh one. products: the type of the
    factors of products, in which frozen matrices that are not quantized are held.
    """
    if isinstance(config, VisionLanguageConfig):
        assert weights is not None, "a run on pictures begins with a model"
        return vision_model_to_train(settings, config, weights, adapter, device)
    model: Llama
    if settings.base_quantization is not None:
        assert weights is not None, "fresh weights are not frozen"
        model = quantized_base(config, weights, settings.base_quantization, device=device)
        if kept := _kept_blocks(settings.base_quantization, config, as_mapping(weights)):
            notice(f"The file's own {' and '.join(kept)} blocks are the base: they are not rounded a second time.")
    elif weights is None:
        model = Llama.init(config, seed=settings.seed, device=device)
    else:
        model = Llama(config).to(device).load_params(weights)
    if settings.lora is None:
        return model, model.named_params()
    parameters = adapter_params(apply_lora(model, settings.lora, seed=settings.seed))
    for name, tensor in (adapter or {}).items():
        parameters[name].copy_(to_tensor(tensor))
    round_frozen(model, products)
    return model, parameters


def _kept_blocks(quantization: str, config: LlamaConfig, weights: TensorMapping) -> list[str]:
    """The kinds of blocks that the base takes from the file as they are."""
    kinds = base_kinds(quantization, config, weights)
    return sorted({kind for name, kind in kinds.items() if weights.dtype_name(name) == kind})
