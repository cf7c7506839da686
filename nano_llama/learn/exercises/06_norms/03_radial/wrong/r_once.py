# stage: smallest | says: r^3 comes from the derivative of r, and nothing takes two of its factors away: r S - r^3 S (r^-2 - eps).
import numpy as np


def radial(x, weight, eps, dy):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1) + eps)
    return eps * r * np.sum(dy * weight * x, axis=-1)
