"""Nesterov's momentum: the heavy ball, corrected by the gradient of where it is about to be.

momentum.py has it without the correction. Tests: tests/vol1/test_optim_first_order.py.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.momentum import Momentum


class Nesterov(Momentum):
    """b <- mu b + g,   theta <- theta - lr (g + mu b)

    Nesterov's method takes g at the look-ahead point theta' = theta - lr mu b and moves  b' = mu b + g(theta'),
    theta <- theta - lr b'. Keep the look-ahead point itself as the parameter (Bengio et al. 2013, eq. 7): it moves
    from  theta - lr mu b  to  theta - lr b' - lr mu b',  that is by  -lr (b' - mu b + mu b') = -lr (g + mu b').
    """

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        b = self.state["momentum"][name]
        grad = grad + self.weight_decay[name] * param
        b *= self.momentum
        b += grad
        param -= lr * (grad + self.momentum * b)
