"""What training a model that reads images adds: where it starts, what is trained, and how fast each part learns.

Encoder and projector are new and learn at the run's rate. The LLaMA has learned before: it follows at a fraction of
that rate (setting `language_model_lr`), or is frozen, with LoRA factors that follow in its place
(`language_model_rank`) or none. Tests: tests/vol2/vision/test_vision_training.py, test_vision_lora.py.
"""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from nano_llama.core.vision.config import ModelConfig, VisionLanguageConfig
from nano_llama.core.vision.names import is_language_model
from nano_llama.training.preflight import trained_shapes
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.finetune.adapters import apply_lora
from nano_llama.vol2_torch.model import to_tensor
from nano_llama.vol2_torch.optim import LR_SCALE, Muon, make_optimizers
from nano_llama.vol2_torch.optim.muon import Orthogonalize, orthogonalize
from nano_llama.vol2_torch.vision.model import VisionLanguageModel

Parameters = Mapping[str, nn.Parameter]


def vision_model_to_train(
    settings: TrainSettings, config: VisionLanguageConfig, weights: Mapping[str, np.ndarray],
    adapter: Mapping[str, np.ndarray] | None, device: torch.device,
) -> tuple[VisionLanguageModel, dict[str, nn.Parameter]]:  # fmt: skip
    """(model, {name: parameter that is trained}). adapter: the factors that it goes on from; None for fresh ones."""
    model = VisionLanguageModel(config).to(device).load_params(weights)
    if settings.lora is not None:
        apply_lora(model.language_model, settings.lora, seed=settings.seed)
    own = dict(model.requires_grad_(False).named_parameters())
    parameters = {name: own[name] for name in trained_shapes(config, settings)}
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    with torch.no_grad():
        for name, tensor in (adapter or {}).items():
            parameters[name].copy_(to_tensor(tensor))
    return model, parameters


def optimizers_of(
    config: ModelConfig, parameters: Parameters, settings: TrainSettings, products: torch.dtype = torch.float32,
    muon: Callable[..., torch.optim.Optimizer] = Muon, orthogonalize: Orthogonalize = orthogonalize,
) -> list[torch.optim.Optimizer]:  # fmt: skip
    """The optimizers of a run's parameters. Of a model that reads images the LLaMA has some of its own.

    They are AdamW where the others are Muon, whose products over the LLaMA's matrices would take as long as the
    gradient of a batch of pictures.
    """
    if not isinstance(config, VisionLanguageConfig):
        return make_optimizers(parameters, settings, products, muon, orthogonalize)
    new = {name: parameter for name, parameter in parameters.items() if not is_language_model(name)}
    trained_before = {name: parameter for name, parameter in parameters.items() if is_language_model(name)}
    optimizers = make_optimizers(new, settings, products, muon, orthogonalize)
    if trained_before:
        rule = "adamw" if settings.optimizer == "muon" else settings.optimizer
        slower = make_optimizers(trained_before, settings.replace(optimizer=rule), products)
        for group in (group for optimizer in slower for group in optimizer.param_groups):
            group[LR_SCALE] = settings.language_model_lr
        optimizers += slower
    return optimizers
