# stage: smallest | says: The argument of tanh is x / c.
import numpy as np


def capped_forward(x, targets, c):
    rows = np.arange(len(x))
    z = c * np.tanh(x)
    m = np.max(z, axis=-1, keepdims=True)
    e = np.exp(z - m)
    total = np.sum(e, axis=-1, keepdims=True)
    losses = (m + np.log(total))[:, 0] - z[rows, targets]
    return float(np.mean(losses)), (e / total, z, targets, c)


def capped_backward(dloss, cache):
    p, z, targets, c = cache
    dz = p.copy()
    dz[np.arange(len(p)), targets] -= 1
    return dz * (1 - (z / c) ** 2) * p.dtype.type(dloss / len(p))
