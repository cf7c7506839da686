"""Adapters in the Torch runner: beside the matrices of Volume 2's model, each row's own.

Plain rather than fast: a product for each adapter that is in the batch. Tests: tests/vol3/test_adapters.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nano_llama.formats.peft import Adapter
from nano_llama.vol2_torch.model import Llama, to_tensor
from nano_llama.vol3_engine.adapters import low_rank_updates


@dataclass
class AdaptedRows:
    """Which rows of the batch each adapter has; the runner says it anew before they are multiplied."""

    of: dict[str, Tensor] = field(default_factory=dict)  # name -> rows

    def select(self, names: list[str | None], device: torch.device) -> None:
        """names: each row's adapter."""
        self.of = {
            name: torch.tensor([row for row, own in enumerate(names) if own == name], device=device)
            for name in dict.fromkeys(names)
            if name is not None
        }


class AdaptedLinear(nn.Module):
    """y = W x, and for the rows of an adapter  y = rescaling * (W x) + B (A x)  in float32, by Volume 2's parameter."""

    def __init__(self, weight: nn.Parameter, rows: AdaptedRows):
        super().__init__()
        self.weight, self.rows = weight, rows
        self.updates: dict[str, tuple[Tensor, ...]] = {}  # adapter -> its LowRankUpdate's arrays

    def forward(self, x: Tensor) -> Tensor:  # (N,in) -> (N,out)
        y = F.linear(x, self.weight)
        for name, rows in self.rows.of.items():
            if name in self.updates:
                A, B, rescaling = self.updates[name]
                update = F.linear(F.linear(x[rows].to(A.dtype), A), B)  # (n,out)
                y[rows] = (rescaling * y[rows] + update).to(y.dtype)
        return y


def attach(model: Llama, adapters: Mapping[str, Adapter]) -> AdaptedRows:
    """Put the adapters beside the model's matrices -> what says which rows are whose."""
    rows, layers = AdaptedRows(), dict[str, AdaptedLinear]()

    def layer_of(module: str) -> AdaptedLinear:
        if module not in layers:
            tied = module == "lm_head" and model.lm_head is None
            base: Any = model.model.embed_tokens if tied else model.get_submodule(module)
            layers[module] = AdaptedLinear(base.weight, rows)
            parent, _, child = module.rpartition(".")
            setattr(model.get_submodule(parent), child, layers[module])
        return layers[module]

    def weight_of(module: str) -> np.ndarray:
        return layer_of(module).weight.detach().float().cpu().numpy()

    for name, adapter in adapters.items():
        for module, update in low_rank_updates(adapter, weight_of).items():
            layer_of(module).updates[name] = tuple(to_tensor(array).to(model.device) for array in update)
    return rows
