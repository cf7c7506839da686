"""Softmax over one axis, by default the last: scores become weights that are positive and sum to one.

flash_attention.py has the online form, which never sees a whole row at once.
Tests: tests/vol1/test_ops_gradients.py.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache


def softmax_forward(x: Array, axis: int = -1) -> tuple[Array, Cache]:
    """y_i = exp(x_i - m) / sum_j exp(x_j - m),  m = max(x), i and j along `axis`.    x: any shape   -> y, the same

    Any m cancels; the largest x keeps every exponent at or below 0, so that nothing overflows.
    A row of -inf only, where nothing may be chosen, gives zeros instead of 0/0.
    """
    m = np.max(x, axis=axis, keepdims=True)  # 1 along the axis
    e = np.exp(x - np.where(np.isneginf(m), 0, m))
    total = np.sum(e, axis=axis, keepdims=True)  # at least 1, except in a row of zeros
    y = e / np.where(total == 0, 1, total)
    return y, (y, axis)


def softmax_backward(dy: Array, cache: Cache) -> Array:
    """From y_i = e_i / sum_j e_j:   dy_i/dx_j = y_i (1[i=j] - y_j).   Hence, for one row,

        dx_j = sum_i dy_i y_i (1[i=j] - y_j) = y_j (dy_j - sum_i dy_i y_i)

    m needs no term of its own: y does not depend on it. In a row of zeros all of this is 0.  -> dx
    """
    y, axis = cache
    return y * (dy - np.sum(dy * y, axis=axis, keepdims=True))
