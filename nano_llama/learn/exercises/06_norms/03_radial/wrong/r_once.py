# stage: smallest | says: The power of r is not right: count the factors of r in each of the two terms.
import numpy as np


def radial(x, weight, eps, dy):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    return eps * r * np.sum(dy * weight * x, axis=-1)
