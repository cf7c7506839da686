# stage: smallest | says: Only the term through r is here, or only the direct one; x . dx has both.
import numpy as np


def radial(x, weight, eps, dy):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    return r * np.sum(dy * weight * x, axis=-1)
