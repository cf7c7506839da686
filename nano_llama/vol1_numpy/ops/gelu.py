"""GELU, x times the probability that a standard normal variable is below x: the nonlinearity of image encoders.

In the form with tanh, which SigLIP's weights were trained with. The exact one has the error function, which NumPy
lacks; the two differ by less than 5e-4 everywhere. Tests: tests/vol1/test_ops_gradients.py.
Source: Hendrycks and Gimpel 2016, "Gaussian Error Linear Units" (arXiv 1606.08415), section 2.
"""

import math

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache

SCALE = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def gelu_forward(x: Array) -> tuple[Array, Cache]:
    """y = x (1 + t) / 2,  t = tanh(u),  u = SCALE (x + CUBIC x^3).    x: (...)   -> y (...)"""
    t = np.tanh(SCALE * x * (1 + CUBIC * x * x))  # (...)
    return 0.5 * x * (1 + t), (x, t)


def gelu_backward(dy: Array, cache: Cache) -> Array:
    """With dt/du = 1 - t^2 and du/dx = SCALE (1 + 3 CUBIC x^2), the product rule gives

        dy/dx = (1 + t) / 2 + x (1 - t^2) SCALE (1 + 3 CUBIC x^2) / 2

    -> dx (...)
    """
    x, t = cache
    slope = SCALE * (1 + 3 * CUBIC * x * x)  # du/dx
    return dy * 0.5 * (1 + t + x * (1 - t * t) * slope)
