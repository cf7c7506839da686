# stage: gradcheck | says: The factor c / |e| was treated as a constant; it depends on every entry of its row.
import numpy as np


def max_norm_forward(tokens, E, c):
    e = E[tokens]  # (N,D)
    n = np.maximum(np.sqrt(np.sum(e * e, axis=-1, keepdims=True)), 1e-30)  # (N,1)
    y = e * np.minimum(1, c / n)
    return y, (tokens, e, n, c, E.shape)


def max_norm_backward(dy, cache):
    tokens, e, n, c, shape = cache
    along = np.sum(dy * e, axis=-1, keepdims=True) / n**2
    de = np.where(n > c, c / n * dy, dy)
    dE = np.zeros(shape, dy.dtype)
    np.add.at(dE, tokens, de)
    return dE
