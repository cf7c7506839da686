# stage: smallest | says: There is one gate for each head, not for each feature of a head.
import numpy as np


def gated_heads_forward(o, weight, gate):
    T, H, K = o.shape
    open_ = o.reshape(T, H * K) * np.resize(gate, H * K)
    return open_ @ weight.T, (o, weight, gate, open_)


def gated_heads_backward(dy, cache):
    o, weight, gate, open_ = cache
    dopen = (dy @ weight).reshape(o.shape)  # (T,H,K)
    return dopen * gate[:, None], dy.T @ open_, np.sum(dopen * o, axis=(0, 2))
