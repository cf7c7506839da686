"""Lion: only the sign of the gradient, and half of Adam's memory.

Tests: tests/vol1/test_optim_lion.py.
"""

import numpy as np

from nano_llama.vol1_numpy.optim.base import Arrays, Optimizer, check_range


class Lion(Optimizer):
    """Chen et al. 2023, algorithm 2 (found by program search, not derived):

        c <- b1 m + (1 - b1) g,      theta <- theta - lr (sign(c) + lambda theta),      m <- b2 m + (1 - b2) g

    Every weight moves by exactly lr: steepest descent where a step's length is its largest entry (for
    |d|_inf <= lr the linear model g.d is least at d = -lr sign(g)). The present gradient weighs more in the step (b1)
    than in the momentum (b2). Steps are longer than Adam's, so its authors advise a 3 to 10 times lower lr and as much
    higher lambda.
    """

    slots = ("m",)

    def __init__(self, params: Arrays, lr: float = 1e-4, *, betas: tuple[float, float] = (0.9, 0.99), **options):
        check_range("first beta", betas[0], 0.0, 1.0)
        check_range("second beta", betas[1], 0.0, 1.0)
        super().__init__(params, lr, **options)
        self.betas = betas

    def update(self, name: str, param: np.ndarray, grad: np.ndarray, lr: float) -> None:
        m, (b1, b2) = self.state["m"][name], self.betas
        direction = np.sign(b1 * m + (1 - b1) * grad)
        param *= 1 - lr * self.weight_decay[name]
        param -= lr * direction
        m += (1 - b2) * (grad - m)
