# stage: gradcheck | says: In the second term dy is taken without the gain: it is g = dy * weight that arrives at q r.
import numpy as np


def qk_norm_forward(q, weight, eps):
    r = 1 / np.sqrt(np.mean(q * q, axis=-1, keepdims=True) + eps)
    return q * r * weight, (q, weight, r)


def qk_norm_backward(dy, cache):
    q, weight, r = cache
    dq = r * dy * weight - q * r**3 * np.mean(dy * q, axis=-1, keepdims=True)
    return dq, np.sum(dy * q * r, axis=(0, 1))
