# stage: smallest | says: The gain is missing: what arrives at x r is dy times w.
import numpy as np


def radial(x, weight, eps, dy):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    return eps * r**3 * np.sum(dy * x, axis=-1)
