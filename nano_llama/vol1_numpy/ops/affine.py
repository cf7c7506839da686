"""A matrix product with a bias: a LLaMA has none of these, an image encoder has nothing else.

Tests: tests/vol1/test_ops_gradients.py.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.linear import linear_backward, linear_forward


def affine_forward(x: Array, weight: Array, bias: Array) -> tuple[Array, Cache]:
    """y = x W^T + b.    x: (..., in)   weight: (out, in)   bias: (out,)   -> y (..., out)"""
    y, cache = linear_forward(x, weight)  # (..., out)
    y += bias
    return y, cache


def affine_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """linear_backward, and for the bias, which is added to every row n:  db[o] = sum_n dy[n,o].

    -> dx (..., in), dweight (out, in), dbias (out,)
    """
    dx, dweight = linear_backward(dy, cache)
    return dx, dweight, np.sum(dy, axis=tuple(range(dy.ndim - 1)))
