"""Clipping multiplies all gradients by one factor: that which brings their common norm down to the limit."""

import math

import numpy as np

from nano_llama.vol1_numpy.optim import clip_by_global_norm

CASES = (([3.0, 4.0], 1.0), ([30.0, 0.2, 0.0], 5.0), ([0.9, 0.9, 0.9], 1.0), ([0.1, 0.1], 1.0), ([2.0], 0.5))


def clipped(norms, max_norm):
    """Gradients of these norms, before and after; and what clipping returned."""
    grads = {f"w{i}": np.full((2, 2), norm / 2) for i, norm in enumerate(norms)}
    before = {name: grad.copy() for name, grad in grads.items()}
    return before, grads, clip_by_global_norm(grads, max_norm)


def test_the_direction_is_kept():
    for norms, max_norm in CASES:
        before, after, _ = clipped(norms, max_norm)
        factors = {float(after[name].flat[0] / before[name].flat[0]) for name in before if before[name].any()}
        assert max(factors) - min(factors) < 1e-12, (
            f"gradients of norms {norms}, clipped to {max_norm}, are multiplied by {sorted(factors)}, not by one factor"
        )


def test_the_common_norm_comes_down_to_the_limit():
    for norms, max_norm in CASES:
        norm = math.hypot(*norms)
        _, after, returned = clipped(norms, max_norm)
        assert math.isclose(returned, norm), f"of norms {norms} it reports {returned:.3g} as the common one"
        left = math.sqrt(sum(float(np.sum(grad**2)) for grad in after.values()))
        assert math.isclose(left, min(norm, max_norm)), (
            f"norms {norms}, clipped to {max_norm}, have {left:.3g} together"
        )
