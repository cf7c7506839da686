"""Gradient descent with momentum: a heavy ball that rolls over noise and along valleys.

nesterov.py adds the look-ahead. Tests: tests/vol1/test_optim_first_order.py.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.base import Arrays, Optimizer, check_range


class Momentum(Optimizer):
    """b <- mu b + g,   theta <- theta - lr b                                      (Polyak 1964, in the form of torch)

    b sums the past gradients with weights 1, mu, mu^2, ...: where they agree the step grows towards lr g / (1 - mu),
    where they alternate they cancel. Weight decay is the penalty's gradient, part of g.
    """

    slots = ("momentum",)

    def __init__(self, params: Arrays, lr: float, *, momentum: float = 0.9, **options):
        check_range("momentum", momentum, 0.0, 1.0)
        super().__init__(params, lr, **options)
        self.momentum = momentum

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        b = self.state["momentum"][name]
        b *= self.momentum
        b += grad + self.weight_decay[name] * param
        param -= lr * b
