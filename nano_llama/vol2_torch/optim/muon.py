"""Muon: the momentum of a matrix, made orthogonal before it is applied (derived in vol1_numpy/optim/muon.py).

Why not torch.optim.Muon: it always orthogonalizes in bfloat16, which most CPUs emulate (a training step of
Shakespeare's model took four times as long), and one matrix at a time, where matrices of one shape can share every
product. Here bfloat16 is used where the run's own products are in it: 3 to 5 times faster with AMX (dev/LOG.md).
Embedding, head and norms are AdamW's. Tests: tests/vol2/test_optim.py.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nano_llama.vol2_torch.optim.scaled import add_scaled_

# of (matrices, short, long), the number of iterations and the products' type -> the same shape
Orthogonalize = Callable[[Tensor, int, torch.dtype], Tensor]

QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al. 2024, "Muon: an optimizer for hidden layers"


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


class Muon(torch.optim.Optimizer):
    """m <- mu m + (1 - mu) g,  u = mu m + (1 - mu) g,
    theta <- (1 - lr weight_decay) theta - lr 0.2 sqrt(max(rows, columns)) orthogonalize(u)

    Jordan et al. 2024, with the step size of Liu et al. 2025 (arXiv 2502.16982): AdamW's learning rates serve here too.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float | Tensor = 1e-3,
        *,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        iterations: int = 5,
        products: torch.dtype = torch.float32,
        orthogonalize: Orthogonalize = orthogonalize,
    ):
        """lr: a tensor, (), on the weights' device stays where it is, as a recorded step needs. products: what the
        factors of orthogonalize's products are rounded to. orthogonalize: a faster form of the function above."""
        super().__init__(
            params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "iterations": iterations}
        )
        self.products = products
        self.orthogonalize = orthogonalize

    @torch.no_grad()
    def warm_up(self) -> None:
        """Let `orthogonalize` see every shape that a step gives it: a compiled form is compiled for each."""
        for group in self.param_groups:
            for (short, longer), alike in by_shape(group["params"]).items():
                zeros = alike[0].new_zeros(len(alike), short, longer)
                self.orthogonalize(zeros, group["iterations"], self.products)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None, "a closure is not supported"
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                self._step(parameters, group)

    def _step(self, parameters: list[nn.Parameter], group: dict[str, Any]) -> None:
        lr, momentum = group["lr"], group["momentum"]
        torch._foreach_lerp_([self._momentum(p) for p in parameters], gradients(parameters), 1.0 - momentum)
        torch._foreach_mul_(list[Tensor](parameters), 1.0 - lr * group["weight_decay"])
        for (_, longer), alike in by_shape(parameters).items():
            ahead = torch._foreach_lerp(gradients(alike), [self._momentum(p) for p in alike], momentum)
            steps = self._orthogonalized(alike, ahead, group["iterations"])
            add_scaled_(list[Tensor](alike), steps, -lr * (0.2 * longer**0.5))

    def _orthogonalized(self, parameters: list[nn.Parameter], ahead: Sequence[Tensor], iterations: int) -> list[Tensor]:
        """What becomes of the momenta `ahead` of these parameters, of one shape up to transposition."""
        return batched(lambda wide: self.orthogonalize(wide, iterations, self.products), ahead)

    def _momentum(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        return state["momentum"]


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """Of parameters that have one."""
    return [parameter.grad for parameter in parameters]  # type: ignore[misc]


def by_shape(parameters: Iterable[nn.Parameter]) -> dict[tuple[int, int], list[nn.Parameter]]:
    """(short, long) -> the matrices of that shape, up to transposition: gate, up and down of all layers are one."""
    found: dict[tuple[int, int], list[nn.Parameter]] = {}
    for parameter in parameters:
        rows, columns = parameter.shape
        found.setdefault((min(rows, columns), max(rows, columns)), []).append(parameter)
    return found


def batched(function: Callable[[Tensor], Tensor], matrices: Sequence[Tensor]) -> list[Tensor]:
    """function, (matrices, short, long) -> the same shape, of all matrices at once, which are of one shape up to
    transposition; those that are not are copied as one, so that each result lies in memory as its matrix does."""
    wide = [index for index, matrix in enumerate(matrices) if is_wide(matrix)]
    tall = [index for index, matrix in enumerate(matrices) if not is_wide(matrix)]
    parts = [torch.stack([matrices[index] for index in wide])] if wide else []
    parts += [torch.stack([matrices[index] for index in tall]).mT] if tall else []
    made = function(torch.cat(parts) if len(parts) > 1 else parts[0].contiguous())
    results = [*made[: len(wide)], *made[len(wide) :].mT.contiguous()]
    return [result for _, result in sorted(zip([*wide, *tall], results, strict=True), key=lambda pair: pair[0])]


def is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]
