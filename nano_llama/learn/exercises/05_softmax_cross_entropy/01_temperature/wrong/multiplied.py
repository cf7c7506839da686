# stage: smallest | says: The scores are divided by the temperature, not multiplied.
import numpy as np


def softmax_forward(x, tau):
    z = x * tau
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    y = e / np.sum(e, axis=-1, keepdims=True)
    return y, (x, tau, y)


def softmax_backward(dy, cache):
    x, tau, y = cache
    dz = y * (dy - np.sum(dy * y, axis=-1, keepdims=True))
    return dz / tau, -np.sum(dz * x) / tau**2
