"""Clipping by global norm: a bad batch can change the step's direction, but not make it longer.

Clipping each weight by itself would change the gradient's direction. Tests: tests/vol1/test_optim_clip_ema.py.
"""

import math
from collections.abc import Mapping

import numpy as np


def global_norm(grads: Mapping[str, np.ndarray]) -> float:
    """|g| over all tensors as one long vector. Each tensor's sum of squares is one BLAS dot; they add up in float64."""
    flat = (g.reshape(-1) for g in grads.values())
    return math.sqrt(math.fsum(float(np.dot(g, g)) for g in flat))


def clip_by_global_norm(grads: Mapping[str, np.ndarray], max_norm: float) -> float:
    """Scale all of `grads` in place by max_norm / |g| where |g| > max_norm > 0 (Pascanu et al. 2013). -> |g| before.

    A norm that is not finite is returned and nothing is scaled: the caller decides whether to stop or to skip the step.
    """
    norm = global_norm(grads)
    if math.isfinite(norm) and norm > max_norm:
        for grad in grads.values():
            grad *= max_norm / norm
    return norm
