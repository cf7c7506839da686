# stage: gradcheck | says: dr/dq_k = -r^3 q_k / K: the 1/K of the mean is missing in the backward.
import numpy as np


def qk_norm_forward(q, weight, eps):
    r = 1 / np.sqrt(np.mean(q * q, axis=-1, keepdims=True) + eps)
    return q * r * weight, (q, weight, r)


def qk_norm_backward(dy, cache):
    q, weight, r = cache
    g = dy * weight
    dq = r * g - q * r**3 * np.sum(g * q, axis=-1, keepdims=True)
    return dq, np.sum(dy * q * r, axis=(0, 1))
