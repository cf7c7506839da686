# stage: edge | says: A row of zeros gives 0/0.
import numpy as np


def max_norm_forward(tokens, E, c):
    e = E[tokens]  # (N,D)
    n = np.sqrt(np.sum(e * e, axis=-1, keepdims=True))  # (N,1)
    y = e * np.minimum(1, c / n)
    return y, (tokens, e, n, c, E.shape)


def max_norm_backward(dy, cache):
    tokens, e, n, c, shape = cache
    along = np.sum(dy * e, axis=-1, keepdims=True) / n**2
    de = c / np.maximum(n, c) * (dy - e * along * (n > c))
    dE = np.zeros(shape, dy.dtype)
    np.add.at(dE, tokens, de)
    return dE
