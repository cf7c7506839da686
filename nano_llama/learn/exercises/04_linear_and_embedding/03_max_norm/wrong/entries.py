# stage: smallest | says: Each entry was cut to c; it is the length of the row that is bounded.
import numpy as np


def max_norm_forward(tokens, E, c):
    e = E[tokens]  # (N,D)
    n = np.maximum(np.sqrt(np.sum(e * e, axis=-1, keepdims=True)), 1e-30)  # (N,1)
    y = np.clip(e, -c, c)
    return y, (tokens, e, n, c, E.shape)


def max_norm_backward(dy, cache):
    tokens, e, n, c, shape = cache
    along = np.sum(dy * e, axis=-1, keepdims=True) / n**2
    de = np.where(n > c, c / n * (dy - e * along), dy)
    dE = np.zeros(shape, dy.dtype)
    np.add.at(dE, tokens, de)
    return dE
