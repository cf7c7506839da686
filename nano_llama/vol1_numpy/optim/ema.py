"""A running average of the weights: often a better model than any single step's.

Tests: tests/vol1/test_optim_clip_ema.py.
"""

from collections.abc import Mapping

import numpy as np

from nano_llama.vol1_numpy.optim.base import check_range


class EMA:
    """a <- a + (1 - d_t) (theta - a),    d_t = min(decay, (1 + t) / (10 + t))

    Averaging over about 1 / (1 - decay) steps removes the part of the noise that lr leaves in theta (Polyak & Juditsky
    1992). d_t starts low so that the average loses the random initial weights within the first steps.
    `params` holds the average: {name: array}, ready for a model of the same config.
    """

    def __init__(self, params: Mapping[str, np.ndarray], decay: float = 0.999):
        check_range("decay of the average", decay, 0.0, 1.0)
        self.decay = decay
        self.steps = 0
        self.params = {name: param.copy() for name, param in params.items()}

    def update(self, params: Mapping[str, np.ndarray]) -> None:
        """Update the average with the weights after one more optimizer step."""
        self.steps += 1
        new = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for name, average in self.params.items():
            average += new * (params[name] - average)

    def state_dict(self) -> dict[str, np.ndarray]:
        return {"steps": np.array(self.steps, np.int64), **self.params}

    def load_state_dict(self, saved: Mapping[str, np.ndarray]) -> None:
        self.steps = int(saved["steps"])
        for name, average in self.params.items():
            np.copyto(average, saved[name])
