"""Muon: the momentum of a matrix, made orthogonal before it is applied (derived in vol1_numpy/optim/muon.py).

Why not torch.optim.Muon: it always orthogonalizes in bfloat16, which most CPUs emulate (a training step of
Shakespeare's model took four times as long), and one matrix at a time, where matrices of one shape can share every
product. Here bfloat16 is used where the run's own products are in it: 3 to 5 times faster with AMX (dev/LOG.md).
Embedding, head and norms are AdamW's. Tests: tests/vol2/test_optim.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, "Muon: an optimizer for hidden layers"


class Muon(torch.optim.Optimizer):
    """m <- mu m + (1 - mu) g,  u = mu m + (1 - mu) g,
    theta <- (1 - lr weight_decay) theta - lr 0.2 sqrt(max(rows, columns)) orthogonalize(u)

    Jordan et al. 2024, with the step size of Liu et al. 2025 (arXiv 2502.16982): AdamW's learning rates serve here too.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        iterations: int = 5,
        products: torch.dtype = torch.float32,
    ):
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "iterations": iterations}
        )
        self.products = products  # what the factors of orthogonalize's products are rounded to

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None, "a closure is not supported"
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    rows, columns = parameter.shape
                    by_shape.setdefault((min(rows, columns), max(rows, columns)), []).append(parameter)
            for (_, longer), parameters in by_shape.items():
                self._step(parameters, 0.2 * longer**0.5, group)

    def _step(self, parameters: list[nn.Parameter], scale: float, group: dict[str, Any]) -> None:
        """Update matrices of one shape, up to transposition, with batched products."""
        lr, momentum = group["lr"], group["momentum"]
        weights: list[Tensor] = list(parameters)
        gradients: list[Tensor] = [parameter.grad for parameter in parameters]  # type: ignore[misc]
        momenta = [self._momentum(parameter) for parameter in parameters]
        torch._foreach_lerp_(momenta, gradients, 1.0 - momentum)
        ahead = torch._foreach_lerp(gradients, momenta, momentum)
        steps = self._orthogonalized(parameters, ahead, group["iterations"])
        torch._foreach_mul_(weights, 1.0 - lr * group["weight_decay"])
        torch._foreach_add_(weights, steps, alpha=-lr * scale)

    def _orthogonalized(self, parameters: list[nn.Parameter], ahead: Sequence[Tensor], iterations: int) -> list[Tensor]:
        """What becomes of the momenta `ahead` of these parameters, of one shape up to transposition."""
        wide = torch.stack([matrix if is_wide(matrix) else matrix.T for matrix in ahead])  # (matrices, short, long)
        steps = orthogonalize(wide, iterations, self.products)
        return [step if is_wide(matrix) else step.T for step, matrix in zip(steps, ahead, strict=True)]

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def orthogonalize(matrices: Tensor, iterations: int = 5, products: torch.dtype = torch.float32) -> Tensor:
    """About P Q^T of each matrix P S Q^T, by Newton-Schulz iteration.  (matrices, short, long) -> the same shape

    X <- a X + (b X X^T + c (X X^T)^2) X, from X divided by its Frobenius norm; computed in the format `products`.
    """
    a, b, c = QUINTIC
    x = (matrices / (matrices.norm(dim=(1, 2), keepdim=True) + 1e-7)).to(products)
    for _ in range(iterations):
        gram = x @ x.mT  # (matrices, short, short)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)


def is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
