# stage: gradcheck | says: All weights of a row move together: the sum over the row is missing in dZ.
import numpy as np


def sloped_forward(q, k, v, slope):
    T, K = q.shape
    distance = np.arange(T)[:, None] - np.arange(T)[None, :]  # t - s
    scores = q @ k.T / float(np.sqrt(K)) - slope * distance
    scores = np.where(distance >= 0, scores, -np.inf)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    P = e / e.sum(axis=1, keepdims=True)
    return (P @ v).astype(q.dtype), (q, k, v, P.astype(q.dtype), distance)


def sloped_backward(dout, cache):
    q, k, v, P, distance = cache
    dP = dout @ v.T
    dZ = P * (1 - P) * dP
    root = float(np.sqrt(q.shape[1]))
    return dZ @ k / root, dZ.T @ q / root, P.T @ dout, -np.sum(dZ * distance)
