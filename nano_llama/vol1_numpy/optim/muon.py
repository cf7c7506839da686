"""Muon: the momentum of a matrix, made orthogonal before it is applied.

The embedding, the head and the norms' gains are not maps from activations to activations: AdamW updates them.
Tests: tests/vol1/test_optim_muon.py.
"""

import numpy as np

from nano_llama.core.names import is_hidden_matrix
from nano_llama.vol1_numpy.optim.adamw import AdamW
from nano_llama.vol1_numpy.optim.base import Arrays, Optimizer, check_range

QUINTIC = (
    3.4445,
    -4.7750,
    2.0315,
)  # (a, b, c) of Jordan et al. 2024: steepest at 0, and [0, 1] stays in about [0, 1.2]


class Muon(Optimizer):
    """Jordan et al. 2024 (the post "Muon: an optimizer for hidden layers"), with the step size of Liu et al. 2025:

        m <- mu m + (1 - mu) g,       u = mu m + (1 - mu) g           (Nesterov's look-ahead)
        theta <- (1 - lr lambda) theta - lr 0.2 sqrt(max(rows, columns)) orthogonalize(u)

    Why orthogonal: with u = P S Q^T, of all steps d whose spectral norm |d| is at most 1, u.d is greatest at
    d = P Q^T (u.d <= |d| sum S, with equality there): steepest descent where a step's length is the most it can stretch
    an activation. An orthogonal (n, k) matrix, k <= n, has Frobenius norm sqrt(k), so its entries' root mean square is
    1/sqrt(n); the factor 0.2 sqrt(n) makes that the 0.2 typical of Adam's steps, so one lr serves both optimizers.
    """

    def __init__(
        self,
        params: Arrays,
        lr: float = 1e-3,
        *,
        momentum: float = 0.95,
        iterations: int = 5,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        **options,
    ):
        """`betas` and `eps` go to the AdamW that updates everything but the hidden matrices."""
        check_range("momentum", momentum, 0.0, 1.0)
        check_range("number of Newton-Schulz iterations", iterations, 1)
        super().__init__(params, lr, **options)
        self.momentum, self.iterations = momentum, iterations
        self._hidden = {name for name in params if is_hidden_matrix(name)}
        self.state = {"momentum": {name: np.zeros_like(params[name]) for name in sorted(self._hidden)}}
        self.adamw = AdamW(self._others(params), lr, betas=betas, eps=eps, **options)

    def _others(self, arrays: Arrays) -> Arrays:
        return {name: array for name, array in arrays.items() if name not in self._hidden}

    def step(self, params: Arrays, grads: Arrays, lr: float | None = None) -> None:
        super().step({name: param for name, param in params.items() if name in self._hidden}, grads, lr)
        self.adamw.step(self._others(params), grads, lr)

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        m, mu = self.state["momentum"][name], self.momentum
        m += (1 - mu) * (grad - m)
        direction = orthogonalize(grad + mu * (m - grad), self.iterations)
        param *= 1 - lr * self.weight_decay[name]
        param -= lr * 0.2 * max(param.shape) ** 0.5 * direction

    def state_dict(self) -> dict[str, np.ndarray]:
        inner = {f"adamw.{key}": array for key, array in self.adamw.state_dict().items()}
        return {**super().state_dict(), **inner}

    def load_state_dict(self, saved: Arrays) -> None:
        super().load_state_dict(saved)  # the arrays of the inner AdamW are among ours, and are filled here
        self.adamw.steps = int(saved["adamw.steps"])


def orthogonalize(matrix: np.ndarray, iterations: int = 5) -> np.ndarray:
    """About P Q^T where matrix = P S Q^T (rows, columns), by Newton-Schulz iteration: matrix products only, no SVD.

    X <- a X + b (X X^T) X + c (X X^T)^2 X  keeps P and Q and sends each singular value s to a s + b s^3 + c s^5.
    Divided by its Frobenius norm first, the matrix has all s in [0, 1]. With Jordan's coefficients five rounds carry
    [0.002, 1] into [0.68, 1.21]: not to 1 exactly, which costs nothing in practice and saves half of the rounds.
    """
    a, b, c = QUINTIC
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # the smaller side makes the smaller X X^T
    x = wide / (np.linalg.norm(wide) + 1e-7)
    for _ in range(iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x if wide is matrix else x.T
