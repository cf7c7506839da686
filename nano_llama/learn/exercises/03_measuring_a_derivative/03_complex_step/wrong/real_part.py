# stage: smallest | says: The real part holds f itself; the derivative is in the imaginary part.
import numpy as np

H = 1e-20


def gradient(f, x):
    grad = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        moved = x.astype(complex)
        moved[index] += 1j * H
        grad[index] = np.real(f(moved))
    return grad
