# stage: gradcheck | says: r was treated as a constant; it depends on every x of its row.
import numpy as np


def norm_forward(x, weight, eps):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * r * (1 + weight), (x, weight, r)


def norm_backward(dy, cache):
    x, weight, r = cache
    return dy * (1 + weight) * r, np.sum(dy * x * r, axis=tuple(range(x.ndim - 1)))
