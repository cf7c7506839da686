# stage: gradcheck | says: r holds a mean over D features, so the second term of dx has a mean too, where a sum was taken.
import numpy as np


def norm_forward(x, weight, eps):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    return x * r * (1 + weight), (x, weight, r)


def norm_backward(dy, cache):
    x, weight, r = cache
    g = dy * (1 + weight)
    dx = r * g - x * r**3 * np.sum(g * x, axis=-1, keepdims=True)
    return dx, np.sum(dy * x * r, axis=tuple(range(x.ndim - 1)))
