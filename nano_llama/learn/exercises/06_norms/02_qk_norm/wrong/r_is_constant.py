# stage: gradcheck | says: r was treated as a constant; it depends on every entry of its vector.
import numpy as np


def qk_norm_forward(q, weight, eps):
    r = 1 / np.sqrt(np.mean(q * q, axis=-1, keepdims=True) + eps)
    return q * r * weight, (q, weight, r)


def qk_norm_backward(dy, cache):
    q, weight, r = cache
    return dy * weight * r, np.sum(dy * q * r, axis=(0, 1))
