"""Averages of the weights along a run: often a better model than the weights of any one step.

Both kinds answer the same calls: `update` after each step, `weights` for the average, `state` and `load` for what a
checkpoint must hold besides the average and the trained weights. Tests: tests/vol2/test_average.py.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

STEPS = "ema.steps"
SCHEDULE_FREE = "schedulefree"


class EMA:
    """a <- a + (1 - d_t)(theta - a),  d_t = min(decay, (1 + t) / (10 + t)), from the weights it is made with.

    Derived in vol1_numpy/optim/ema.py: d_t starts low, so that the average soon loses the random initial weights.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float):
        self.parameters, self.decay, self.steps = parameters, decay, 0
        self.averages = {name: parameter.detach().clone() for name, parameter in parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Update the average with the weights after one more step."""
        self.steps += 1
        new = 1.0 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        weights: list[Tensor] = list(self.parameters.values())
        torch._foreach_lerp_(list(self.averages.values()), weights, new)

    def weights(self) -> dict[str, Tensor]:
        return self.averages

    def state(self) -> dict[str, np.ndarray]:
        return {STEPS: np.array(self.steps, np.int64)}

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        self.steps = int(tensors[STEPS])


class ScheduleFreeAverage:
    """What schedule-free AdamW keeps in itself (Defazio et al. 2024, arXiv 2405.15682, eq. 3 to 5).

    The parameters hold y, where gradients are taken; z are the fast weights, x their average, which is the model:
    y = (1 - beta1) z + beta1 x,  so  x = y + (1 - 1 / beta1)(z - y).
    The library's own eval() and train() turn y into x and back in place, rounding each time, so a run would
    depend on when it was evaluated. Here x is computed beside y.
    """

    SCALARS = ("k", "weight_sum", "lr_max")

    def __init__(self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer):
        self.parameters, self.optimizer = parameters, optimizer

    def update(self) -> None:
        """Nothing to do: the optimizer's step has updated it."""

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        away = 1.0 - 1.0 / self.optimizer.param_groups[0]["betas"][0]
        state = self.optimizer.state
        return {
            name: y.lerp(state[y]["z"], away) if "z" in state.get(y, {}) else y.detach().clone()
            for name, y in self.parameters.items()
        }

    def state(self) -> dict[str, np.ndarray]:
        return {SCHEDULE_FREE: np.array([self.optimizer.param_groups[0][name] for name in self.SCALARS], np.float64)}

    def load(self, tensors: Mapping[str, np.ndarray]) -> None:
        steps, *rest = tensors[SCHEDULE_FREE].tolist()
        for group in self.optimizer.param_groups:  # all alike: their learning rates are
            group.update(zip(self.SCALARS, (int(steps), *rest), strict=True))


Average = EMA | ScheduleFreeAverage
