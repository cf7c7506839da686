"""Gradient descent: the step straight downhill.

Tests: tests/vol1/test_optim_first_order.py.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.base import Optimizer


class SGD(Optimizer):
    """theta <- theta - lr (g + lambda theta)

    Of all moves of one length, the one against the gradient lowers the linear model of the loss,
    f(theta + d) = f + g.d, the most (Cauchy-Schwarz). The penalty lambda/2 |theta|^2 adds lambda theta to g.
    """

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        param -= lr * (grad + self.weight_decay[name] * param)
