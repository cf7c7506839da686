"""Dropout: each element is kept with probability 1 - p and scaled up so that the mean stays the same.

The model does not use it: a LLaMA is trained without dropout. It is here to be read.
Tests: tests/vol1/test_ops_gradients.py.
Source: Srivastava et al. 2014, JMLR 15, section 4, in the "inverted" form that leaves inference alone.
"""

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops.array import Array, Cache


def dropout_forward(x: Array, p: float, rng: np.random.Generator) -> tuple[Array, Cache]:
    """y = x * keep / (1 - p),  keep ~ Bernoulli(1 - p).    x: (...), 0 <= p < 1   -> y (...)

    Raises UserError when p is outside [0, 1).
    """
    if not 0 <= p < 1:
        raise UserError(f"dropout: p = {p!r} must be at least 0 and below 1.")
    scale = (rng.random(x.shape) >= p) / (1 - p)  # (...): 0 or 1/(1-p)
    scale = scale.astype(x.dtype)
    return x * scale, (scale,)


def dropout_backward(dy: Array, cache: Cache) -> Array:
    """y is x times a constant of this draw:  dx = dy * keep / (1 - p).  p and rng have no gradient.  -> dx (...)"""
    (scale,) = cache
    return dy * scale
