"""The optimizers of Volume 2: torch's own or a library's where they serve, ours where they do not (muon.py says why).

The update rules are derived in vol1_numpy/optim. Tests: tests/vol2/test_optim.py.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from nano_llama.core.errors import import_extra
from nano_llama.core.names import is_decayed, is_hidden_matrix
from nano_llama.training.optimizers import is_own, load_optimizer, taken
from nano_llama.training.settings import TrainSettings
from nano_llama.vol2_torch.optim.average import EMA, Average, ScheduleFreeAverage
from nano_llama.vol2_torch.optim.lion import Lion
from nano_llama.vol2_torch.optim.muon import Muon, Orthogonalize, orthogonalize

__all__ = [
    "EMA", "LR_SCALE", "Average", "Lion", "Muon", "ScheduleFreeAverage", "make_average", "make_optimizers",
    "takes_tensor_lr",
]  # fmt: skip

LR_SCALE = "lr_scale"  # of a group of parameters whose learning rate is this fraction of the run's


def make_optimizers(
    parameters: Mapping[str, nn.Parameter], settings: TrainSettings, products: torch.dtype = torch.float32,
    muon: Callable[..., torch.optim.Optimizer] = Muon, orthogonalize: Orthogonalize = orthogonalize,
) -> list[torch.optim.Optimizer]:  # fmt: skip
    """The optimizers that `settings.optimizer` names; together they own every parameter once.

    muon: Muon for the matrices inside the layers, AdamW for embedding, head and norms. Any other: one for all
    parameters. Norms have no weight decay. products: the type of the run's matrix products; only Muon has any of its
    own, and computes them in bfloat16 where the run does, but not in float16, whose range is too small.
    muon: makes that optimizer. orthogonalize: its function, or a faster form of it.
    Raises EnvironmentFault where a library is missing.
    """
    hidden = [name for name in parameters if settings.optimizer == "muon" and is_hidden_matrix(name)]
    others = [name for name in parameters if name not in hidden]
    groups: list[dict[str, Any]] = [
        {"params": [parameters[name] for name in others if is_decayed(name)], "weight_decay": settings.weight_decay},
        {"params": [parameters[name] for name in others if not is_decayed(name)], "weight_decay": 0.0},
    ]
    optimizers = [_single_optimizer(groups, settings)]
    if hidden:
        matrices = [parameters[name] for name in hidden]
        rounded = torch.bfloat16 if products == torch.bfloat16 else torch.float32
        options = {"lr": settings.lr, "weight_decay": settings.weight_decay, "products": rounded}
        optimizers.append(muon(matrices, orthogonalize=orthogonalize, **options))
    return optimizers


def _single_optimizer(groups: list[dict[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    lr, betas = settings.lr, (settings.beta1, settings.beta2)
    if is_own(settings.optimizer):
        rule = load_optimizer(settings.optimizer, torch.optim.Optimizer)
        return rule(groups, lr=lr, **taken(rule, betas=betas))
    if settings.optimizer in ("sgd", "momentum", "nesterov"):
        momentum = 0.0 if settings.optimizer == "sgd" else 0.9  # vol1_numpy/optim/momentum.py's
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=settings.optimizer == "nesterov")
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=lr, betas=betas, fused=True)
    if settings.optimizer == "lion":
        return Lion(groups, lr=lr, betas=betas)
    if settings.optimizer == "adafactor":
        # Shazeer and Stern 2018 (arXiv 1804.04235); torch's own eps1 of 1e-7 is larger than the squares of most
        # gradients, and a much smaller one would vanish when it is squared in float32
        return torch.optim.Adafactor(groups, lr=lr, eps=(1e-16, 1e-3), foreach=True)
    if settings.optimizer == "schedulefree":
        optimizer = import_extra("schedulefree", "train", "Schedule-free AdamW").AdamWScheduleFree(
            groups, lr=lr, betas=betas, foreach=True
        )
        optimizer.train()  # it stays in this mode: average.py computes the average beside the weights
        return optimizer
    return torch.optim.AdamW(groups, lr=lr, betas=betas, fused=True)  # Loshchilov and Hutter 2019 (arXiv 1711.05101)


def takes_tensor_lr(optimizer: torch.optim.Optimizer) -> bool:
    """Whether a learning rate on the device will do, and a step waits for nothing: then it can be recorded."""
    return isinstance(optimizer, torch.optim.AdamW | Lion | Muon)


def make_average(
    parameters: Mapping[str, nn.Parameter], optimizers: list[torch.optim.Optimizer], settings: TrainSettings
) -> Average | None:
    """The average that is evaluated and saved in place of the trained weights; None: the trained weights are."""
    if settings.optimizer == "schedulefree":
        return ScheduleFreeAverage(parameters, optimizers[0])
    return EMA(parameters, settings.ema) if settings.ema else None
