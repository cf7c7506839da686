"""ReLU and its square: gates that close entirely, in place of SiLU where a config says hidden_act relu or relu2.

At 0, where ReLU has no derivative, both take 0. Tests: tests/vol1/test_ops_gradients.py.
Source: Glorot et al. 2011, "Deep Sparse Rectifier Neural Networks"; So et al. 2021, "Primer" (arXiv 2109.08668).
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache


def relu_forward(x: Array) -> tuple[Array, Cache]:
    """y = max(x, 0).    x: (...)   -> y (...)"""
    return np.maximum(x, 0), (x,)


def relu_backward(dy: Array, cache: Cache) -> Array:
    """dy/dx = 1 where x > 0, else 0    -> dx (...)"""
    (x,) = cache
    return dy * (x > 0)


def squared_relu_forward(x: Array) -> tuple[Array, Cache]:
    """y = r^2,  r = max(x, 0).    x: (...)   -> y (...)"""
    r = np.maximum(x, 0)
    return r * r, (r,)


def squared_relu_backward(dy: Array, cache: Cache) -> Array:
    """dy/dx = 2 r dr/dx = 2 r, since r is 0 where dr/dx is    -> dx (...)"""
    (r,) = cache
    return dy * 2 * r
