"""The loss scale of fp16: gradients are computed larger, so that small ones do not become 0, and divided afterwards.

Micikevicius et al. 2018 (arXiv 1710.03740), section 3.2. One thing is done differently: where the scaled gradient
overflows, the same batch is computed again at half the scale, so that no batch is lost and a step stays a step.
bf16 has float32's range and needs none. Tests: tests/vol2/test_loss_scaling.py.
"""

from dataclasses import dataclass

import numpy as np

LARGEST, SMALLEST = 2.0**24, 1.0
GROWTH_INTERVAL = 500  # good steps before a larger scale is tried


@dataclass
class LossScale:
    """`factor` is what the loss is multiplied by; `good` counts the steps since it changed."""

    factor: float = 2.0**14
    good: int = 0

    def lower(self) -> bool:
        """The gradient overflowed. False: it is not the scale's fault."""
        if self.factor <= SMALLEST:
            return False
        self.factor, self.good = self.factor / 2.0, 0
        return True

    def count(self) -> None:
        """The gradient was sound."""
        self.good += 1
        if self.good >= GROWTH_INTERVAL:
            self.factor, self.good = min(2.0 * self.factor, LARGEST), 0

    def to_array(self) -> np.ndarray:  # (2,)
        """As a checkpoint holds it."""
        return np.array([self.factor, self.good], np.float64)

    def load(self, array: np.ndarray) -> None:
        self.factor, self.good = float(array[0]), int(array[1])
