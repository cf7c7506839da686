# stage: gradcheck | says: The loss is a mean over the rows that count; its gradient lacks 1/N'.
import numpy as np


def smoothed_forward(x, targets, s):
    N, V = x.shape
    counted = targets != -100
    m = np.max(x, axis=-1, keepdims=True)
    e = np.exp(x - m)
    total = np.sum(e, axis=-1, keepdims=True)
    q = np.full_like(x, s / V)
    q[np.arange(N), np.where(counted, targets, 0)] += 1 - s
    losses = (m + np.log(total))[:, 0] - np.sum(q * x, axis=-1)
    count = max(np.count_nonzero(counted), 1)
    loss = float(np.sum(losses[counted])) / count
    return loss, (e / total, q, counted, count)


def smoothed_backward(dloss, cache):
    p, q, counted, count = cache
    return (p - q) * (counted[:, None] * dloss).astype(p.dtype)
