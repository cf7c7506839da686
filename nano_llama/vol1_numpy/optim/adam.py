"""Adam: a step per weight, measured in units of that weight's own gradient noise.

adamw.py has decoupled weight decay, and the fast form. Tests: tests/vol1/test_optim_adam.py.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.base import Arrays, Optimizer, check_range


class Adam(Optimizer):
    """Kingma & Ba 2015, algorithm 1:

        m <- b1 m + (1 - b1) g          the mean of recent gradients
        v <- b2 v + (1 - b2) g^2        and of their squares
        theta <- theta - lr m^ / (sqrt(v^) + eps),      m^ = m / (1 - b1^t),   v^ = v / (1 - b2^t)

    Why the division: m starts at 0, so m_t = (1 - b1) sum_{i<=t} b1^(t-i) g_i. With E[g_i] = E[g] the weights sum to
    (1 - b1)(1 + b1 + ... + b1^(t-1)) = 1 - b1^t, so E[m_t] = (1 - b1^t) E[g]; dividing removes the bias. v likewise.
    |m^| <= about sqrt(v^), so no weight moves much more than lr per step, whatever the gradient's scale.
    Weight decay here is the penalty's gradient, part of g, and so is divided by sqrt(v^) too: AdamW corrects that.
    """

    slots = ("m", "v")

    def __init__(
        self,
        params: Arrays,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        **options,
    ):
        check_range("first beta", betas[0], 0.0, 1.0)
        check_range("second beta", betas[1], 0.0, 1.0)
        check_range("epsilon", eps, 0.0)
        super().__init__(params, lr, **options)
        self.betas = betas
        self.eps = eps

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        param -= lr * self.direction(name, grad + self.weight_decay[name] * param)

    def direction(self, name: str, grad: np.ndarray) -> np.ndarray:
        """Update the moments with `grad` and return m^ / (sqrt(v^) + eps)."""
        m, v = self.state["m"][name], self.state["v"][name]
        (b1, b2), t = self.betas, self.steps
        m += (1 - b1) * (grad - m)
        v += (1 - b2) * (grad * grad - v)
        m_hat = m / (1 - b1**t)
        v_hat = v / (1 - b2**t)
        return m_hat / (np.sqrt(v_hat) + self.eps)
