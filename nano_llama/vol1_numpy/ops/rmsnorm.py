"""RMSNorm: each position's features divided by their root mean square, then scaled by a learned gain.

LayerNorm (layernorm.py) also subtracts the mean. Tests: tests/vol1/test_ops_gradients.py.
Source: Zhang and Sennrich 2019, "Root Mean Square Layer Normalization" (arXiv 1910.07467), eq. 4.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache, row_tiles


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


# -- the same, faster: skip it on a first reading ----------------------------------------------------------------------


def rmsnorm_forward_fast(x: Array, weight: Array, eps: float) -> tuple[Array, Cache]:
    """The same in three passes over x: the squares are summed without being kept, and the result is scaled in place."""
    r = 1.0 / np.sqrt(np.vecdot(x, x)[..., None] / x.shape[-1] + eps)  # (..., 1)
    y = x * r
    y *= weight
    return y, (x, r, weight)


def rmsnorm_backward_fast(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """The same, tile by tile; the sum over rows of (dy x) r is the product of a row of all r with (dy x)."""
    x, r, weight = cache
    D = x.shape[-1]
    dx = np.empty_like(x, order="C")
    rows, dy_rows, r_rows, dx_rows = (a.reshape(-1, a.shape[-1]) for a in (x, dy, r, dx))  # (N,D), r (N,1)
    dweight = np.zeros_like(weight)
    for tile in row_tiles(*rows.shape):
        x, dy, r, g = rows[tile], dy_rows[tile], r_rows[tile], dx_rows[tile]
        through = dy * x
        dweight += (r.T @ through)[0]
        np.multiply(dy, weight, out=g)
        np.multiply(x, r**3 / D * np.vecdot(g, x)[:, None], out=through)  # x_j r^3 mean(g x)
        g *= r
        g -= through
    return dx, dweight
