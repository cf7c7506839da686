# stage: gradcheck | says: The gate multiplies the answer of its head: dgate meets o, not o times the gate.
import numpy as np


def gated_heads_forward(o, weight, gate):
    T, H, K = o.shape
    open_ = (o * gate[:, None]).reshape(T, H * K)
    return open_ @ weight.T, (o, weight, gate, open_)


def gated_heads_backward(dy, cache):
    o, weight, gate, open_ = cache
    dopen = (dy @ weight).reshape(o.shape)  # (T,H,K)
    return dopen * gate[:, None], dy.T @ open_, np.sum(dopen * o * gate[:, None], axis=(0, 2))
