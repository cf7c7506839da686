"""RMSNorm: each position's features divided by their root mean square, then scaled by a learned gain.

Not here: LayerNorm, which also subtracts the mean (layernorm.py). Tests: tests/vol1/test_ops_elementary.py.
Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv 1910.07467), eq. 4.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache


def rmsnorm_forward(x: Array, weight: Array, eps: float) -> tuple[Array, Cache]:
    """y = x * r * weight,  r = 1 / sqrt(mean(x^2) + eps).    x: (..., D)   weight: (D,)   -> y (..., D)"""
    r = 1.0 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)  # (..., 1)
    return x * r * weight, (x, r, weight)


def rmsnorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """For one row, let g_i = dy_i weight_i, what arrives at x_i r. x_j acts on y_j directly and on every y_i through r:

        dr/dx_j = -1/2 (mean(x^2) + eps)^(-3/2) * 2 x_j / D = -r^3 x_j / D
        dx_j    = g_j r + sum_i g_i x_i * dr/dx_j           = r g_j - x_j r^3 mean(g x)
        dweight_i = dy_i x_i r, summed over all rows, since they share the gain.

    -> dx (..., D), dweight (D,)
    """
    x, r, weight = cache
    g = dy * weight  # (..., D)
    dx = r * g - x * r**3 * np.mean(g * x, axis=-1, keepdims=True)
    return dx, np.sum(dy * x * r, axis=tuple(range(x.ndim - 1)))
