# stage: gradcheck | says: Only y_i's dependence on its own x_i is here; every x_j moves every y_i through the sum.
import numpy as np


def softmax_forward(x, tau):
    z = x / tau
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    y = e / np.sum(e, axis=-1, keepdims=True)
    return y, (x, tau, y)


def softmax_backward(dy, cache):
    x, tau, y = cache
    dz = y * (1 - y) * dy
    return dz / tau, -np.sum(dz * x) / tau**2
