"""SiLU, x times its own sigmoid: the smooth gate inside a LLaMA's MLP (swiglu.py).

Tests: tests/vol1/test_ops_gradients.py.
Source: Elfwing, Uchibe and Doya 2017 (arXiv 1702.03118), eq. 2 and 3; as "Swish", Ramachandran et al. 2017.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), with the exponential taken of -|x| so that it cannot overflow.    (...) -> (...)"""
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, e) / (1 + e)


def silu_forward(x: Array) -> tuple[Array, Cache]:
    """y = x s,  s = 1 / (1 + exp(-x)).    x: (...)   -> y (...)"""
    s = sigmoid(x)
    return x * s, (x, s)


def silu_backward(dy: Array, cache: Cache) -> Array:
    """ds/dx = exp(-x) / (1 + exp(-x))^2 = s (1 - s), so by the product rule

        dy/dx = s + x s (1 - s) = s (1 + x (1 - s))

    -> dx (...)
    """
    x, s = cache
    return dy * s * (1 + x * (1 - s))
