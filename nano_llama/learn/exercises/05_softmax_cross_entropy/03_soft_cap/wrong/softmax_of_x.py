# stage: gradcheck | says: p is softmax of the capped logits z, not of x.
import numpy as np


def capped_forward(x, targets, c):
    rows = np.arange(len(x))
    z = c * np.tanh(x / c)
    m = np.max(z, axis=-1, keepdims=True)
    e = np.exp(z - m)
    total = np.sum(e, axis=-1, keepdims=True)
    losses = (m + np.log(total))[:, 0] - z[rows, targets]
    f = np.exp(x - np.max(x, axis=-1, keepdims=True))
    return float(np.mean(losses)), (f / np.sum(f, axis=-1, keepdims=True), z, targets, c)


def capped_backward(dloss, cache):
    p, z, targets, c = cache
    dz = p.copy()
    dz[np.arange(len(p)), targets] -= 1
    return dz * (1 - (z / c) ** 2) * p.dtype.type(dloss / len(p))
