# stage: edge | says: x times dx is a difference of nearly equal numbers, of which only rounding is left; use the closed form.
import numpy as np


def radial(x, weight, eps, dy):
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    g = dy * weight
    dx = r * g - x * r**3 * np.mean(g * x, axis=-1, keepdims=True)
    return np.sum(x * dx, axis=-1)
