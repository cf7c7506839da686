# stage: gradcheck | says: mean(g h) was taken after g had been multiplied by r: r stands in it once too often.
import numpy as np


def residual_norm_forward(x, delta, weight, eps):
    h = x + delta
    r = 1 / np.sqrt(np.vecdot(h, h)[:, None] / h.shape[1] + eps)  # (N,1)
    y = h * r
    y *= weight
    return (h, y), (h, weight, r)


def residual_norm_backward(dh, dy, cache):
    h, weight, r = cache
    d = dy * weight
    d *= r
    mean = np.vecdot(d, h)[:, None] / h.shape[1]  # (N,1)
    d += dh
    d -= h * (r**3 * mean)
    return d, d, np.einsum("nd,nd,n->d", dy, h, r[:, 0])
