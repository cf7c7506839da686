# stage: smallest | says: h is so large that h^2 f'''/6 shows; nothing is subtracted here, so h may be 1e-20.
import numpy as np

H = 1e-4


def gradient(f, x):
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * H
        grad[index] = np.imag(f(moved)) / H
    return grad
