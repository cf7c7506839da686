"""A matrix product whose matrix does not learn: what a model multiplies by where it is frozen and has no adapter.

Tests: tests/vol1/test_ops_gradients.py.
"""

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.linear import linear_forward


def frozen_linear_forward(x: Array, weight: Array) -> tuple[Array, Cache]:
    """As linear_forward: y = x W^T. But x, which only dW needs, is not kept.  x: (..., in)   weight: (out, in)"""
    y, _ = linear_forward(x, weight)  # (..., out)
    return y, (weight,)


def frozen_linear_backward(dy: Array, cache: Cache) -> Array:
    """Half of linear_backward: dx = dy W.    dy: (..., out)   -> dx (..., in)"""
    (weight,) = cache
    dy_rows = dy.reshape(-1, dy.shape[-1])  # (N, out)
    dx = dy_rows @ weight  # (N, in)
    return dx.reshape(*dy.shape[:-1], weight.shape[1])
