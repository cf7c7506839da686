import numpy as np


def qk_norm_forward(q, weight, eps):
    r = 1 / np.sqrt(np.mean(q * q, axis=-1, keepdims=True) + eps)  # (B,T,H,1)
    return q * r * weight, (q, weight, r)


def qk_norm_backward(dy, cache):
    q, weight, r = cache
    g = dy * weight  # what arrives at q r
    dq = r * g - q * r**3 * np.mean(g * q, axis=-1, keepdims=True)
    return dq, np.sum(dy * q * r, axis=(0, 1))
