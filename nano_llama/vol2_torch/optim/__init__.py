"""The update rules of Volume 2: torch's own where they serve, ours where they do not (muon.py says why).

Not here: schedules and clipping (the trainer's), the rules derived by hand (vol1_numpy/optim).
Tests: tests/vol2/test_optim.py.
"""

from collections.abc import Mapping

import torch
from torch import nn

from nano_llama.core.names import is_decayed, is_hidden_matrix
from nano_llama.core.training.settings import TrainSettings
from nano_llama.vol2_torch.optim.muon import Muon

__all__ = ["Muon", "make_optimizers"]


def make_optimizers(parameters: Mapping[str, nn.Parameter], settings: TrainSettings) -> list[torch.optim.Optimizer]:
    """The optimizers that `settings.optimizer` names; together they own every parameter once.

    adamw: AdamW for all (Loshchilov and Hutter 2019, arXiv 1711.05101), in torch's fused form. muon: Muon for the
    matrices inside the layers, AdamW for embedding, head and norms. Norms' weights are never decayed.
    """
    hidden = [name for name in parameters if settings.optimizer == "muon" and is_hidden_matrix(name)]
    others = [name for name in parameters if name not in hidden]
    groups = [
        {"params": [parameters[name] for name in others if is_decayed(name)], "weight_decay": settings.weight_decay},
        {"params": [parameters[name] for name in others if not is_decayed(name)], "weight_decay": 0.0},
    ]
    betas = settings.beta1, settings.beta2
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=settings.lr, betas=betas, fused=True)]
    if hidden:
        matrices = [parameters[name] for name in hidden]
        optimizers.append(Muon(matrices, lr=settings.lr, weight_decay=settings.weight_decay))
    return optimizers
