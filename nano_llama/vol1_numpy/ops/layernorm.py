"""LayerNorm: each position's features centred, divided by their standard deviation, scaled and shifted.

A LLaMA uses RMSNorm (rmsnorm.py); this one serves the image encoder of vision/ and the studies.
Tests: tests/vol1/test_ops_gradients.py.
Source: Ba, Kiros and Hinton 2016, "Layer Normalization" (arXiv 1607.06450), eq. 4, with eps as frameworks add it.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache


def layernorm_forward(x: Array, weight: Array, bias: Array, eps: float) -> tuple[Array, Cache]:
    """y = n * weight + bias,  n = (x - mean(x)) * r,  r = 1 / sqrt(var(x) + eps), var with 1/D.

    x: (..., D)   weight, bias: (D,)   -> y (..., D)
    """
    centred = x - np.mean(x, axis=-1, keepdims=True)  # (..., D)
    r = 1.0 / np.sqrt(np.mean(centred * centred, axis=-1, keepdims=True) + eps)  # (..., 1)
    normed = centred * r  # (..., D)
    return normed * weight + bias, (normed, r, weight)


def layernorm_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """For one row, let g_i = dy_i weight_i and c = x - mean(x), so n = c r.

    First back to c, as in rmsnorm_backward (r depends on c exactly as there):
        dc_j = r g_j - c_j r^3 mean(g c) = r (g_j - n_j mean(g n))                              since c r = n
    Then through the centring, c_i = x_i - sum_j x_j / D, whose transpose centres again:
        dx_j = dc_j - mean(dc) = r (g_j - mean(g) - n_j mean(g n))                             since mean(n) = 0
    And, summed over all rows:  dweight_i = dy_i n_i,  dbias_i = dy_i.

    -> dx (..., D), dweight (D,), dbias (D,)
    """
    normed, r, weight = cache
    rows = tuple(range(dy.ndim - 1))
    g = dy * weight  # (..., D)
    dx = r * (g - np.mean(g, axis=-1, keepdims=True) - normed * np.mean(g * normed, axis=-1, keepdims=True))
    return dx, np.sum(dy * normed, axis=rows), np.sum(dy, axis=rows)
