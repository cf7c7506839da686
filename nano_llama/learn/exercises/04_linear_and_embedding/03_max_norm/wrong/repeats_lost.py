# stage: gradcheck | says: dE[tokens] += de counts a repeated token once: NumPy reads, adds and writes back, and the last write stays.
import numpy as np


def max_norm_forward(tokens, E, c):
    e = E[tokens]  # (N,D)
    n = np.maximum(np.sqrt(np.sum(e * e, axis=-1, keepdims=True)), 1e-30)  # (N,1)
    y = e * np.minimum(1, c / n)
    return y, (tokens, e, n, c, E.shape)


def max_norm_backward(dy, cache):
    tokens, e, n, c, shape = cache
    along = np.sum(dy * e, axis=-1, keepdims=True) / n**2
    de = np.where(n > c, c / n * (dy - e * along), dy)
    dE = np.zeros(shape, dy.dtype)
    dE[tokens] += de
    return dE
