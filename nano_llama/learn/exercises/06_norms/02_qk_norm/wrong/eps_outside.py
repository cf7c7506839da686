# stage: smallest | says: eps was added to the root, not under it.
import numpy as np


def qk_norm_forward(q, weight, eps):
    r = 1 / (np.sqrt(np.mean(q * q, axis=-1, keepdims=True)) + eps)
    return q * r * weight, (q, weight, r)


def qk_norm_backward(dy, cache):
    q, weight, r = cache
    g = dy * weight
    dq = r * g - q * r**3 * np.mean(g * q, axis=-1, keepdims=True)
    return dq, np.sum(dy * q * r, axis=(0, 1))
