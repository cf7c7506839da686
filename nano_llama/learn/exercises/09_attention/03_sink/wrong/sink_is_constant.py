# stage: gradcheck | says: The sink takes from every row, so it has a gradient.
import numpy as np


def sink_forward(scores, v, sink):
    m = np.maximum(scores.max(axis=1, keepdims=True), sink)  # (T,1)
    e = np.exp(scores - m)
    at_sink = np.exp(sink - m)
    total = e.sum(axis=1, keepdims=True) + at_sink
    P = e / total
    return P @ v, (P, at_sink / total, v)


def sink_backward(dout, cache):
    P, lost, v = cache  # (T,S), (T,1), (S,K)
    dP = dout @ v.T
    D = np.sum(P * dP, axis=1, keepdims=True)
    return P * (dP - D), P.T @ dout, 0 * np.sum(lost * D)
