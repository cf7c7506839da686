"""Lion: only the sign of the gradient, and half of Adam's memory (derived in vol1_numpy/optim/lion.py).

PyTorch has none of its own. Tests: tests/vol2/test_optim.py.
"""

from typing import Any

import torch
from torch import Tensor

from nano_llama.vol2_torch.optim.scaled import add_scaled_


class Lion(torch.optim.Optimizer):
    """theta <- (1 - lr weight_decay) theta - lr sign(b1 m + (1 - b1) g),   m <- b2 m + (1 - b2) g

    Chen et al. 2023 (arXiv 2302.06675), algorithm 2. Every weight moves by lr: it wants a 3 to 10 times lower lr than
    AdamW, and as much more decay.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        *,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ):
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None, "a closure is not supported"
        for group in self.param_groups:
            weights: list[Tensor] = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not weights:
                continue
            gradients: list[Tensor] = [weight.grad for weight in weights]  # type: ignore[misc]
            momenta = [self._momentum(weight) for weight in weights]
            (b1, b2), lr = group["betas"], group["lr"]
            directions = torch._foreach_lerp(momenta, gradients, 1.0 - b1)
            torch._foreach_sign_(directions)
            torch._foreach_mul_(weights, 1.0 - lr * group["weight_decay"])
            add_scaled_(weights, directions, -lr)
            torch._foreach_lerp_(momenta, gradients, 1.0 - b2)

    def _momentum(self, weight: Tensor) -> Tensor:
        state = self.state[weight]
        if "m" not in state:
            state["m"] = torch.zeros_like(weight)
        return state["m"]
