# stage: smallest | says: A difference of two values loses half of the digits; the imaginary part needs none.
import numpy as np

H = 1e-20


def gradient(f, x):
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += 1e-6
        down[index] -= 1e-6
        grad[index] = (f(up) - f(down)) / 2e-6
    return grad
