# stage: smallest | says: All coordinates were moved together: that gives the sum of the derivatives in each place.
import numpy as np

H = 1e-20


def gradient(f, x):
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved += 1j * H
        grad[index] = np.imag(f(moved)) / H
    return grad
