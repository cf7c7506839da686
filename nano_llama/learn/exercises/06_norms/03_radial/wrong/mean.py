# stage: smallest | says: S is the sum over the row; the 1/D of the mean is used up by the mean of x^2.
import numpy as np


def radial(x, weight, eps, dy):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    return eps * r**3 * np.mean(dy * weight * x, axis=-1)
