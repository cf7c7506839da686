# stage: smallest | says: A query sees itself and what came before it.
import numpy as np


def flash_forward(q, k, v, block):
    T, K = q.shape
    scale = float(1 / np.sqrt(K))
    out, lse = np.zeros_like(v), np.zeros(T, q.dtype)
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        n = rows.stop - start
        m, l, o = np.full(n, -np.inf, q.dtype), np.zeros(n, q.dtype), np.zeros((n, K), q.dtype)
        for first in range(0, T, block):
            s = tile(q, k, rows, first, block, scale)
            new = np.maximum(m, s.max(axis=1))
            p = np.exp(s - new[:, None])
            old = np.exp(m - new)
            l = l * old + p.sum(axis=1)
            o = o * old[:, None] + p @ v[first : first + block]
            m = new
        out[rows], lse[rows] = o / l[:, None], m + np.log(l)
    return out, (q, k, v, out, lse, block, scale)


def flash_backward(dout, cache):
    q, k, v, out, lse, block, scale = cache
    T = len(q)
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k), np.zeros_like(v)
    for start in range(0, T, block):
        rows = slice(start, min(start + block, T))
        D = np.sum(dout[rows] * out[rows], axis=1)
        for first in range(0, T, block):
            keys = slice(first, first + block)
            p = np.exp(tile(q, k, rows, first, block, scale) - lse[rows, None])
            ds = p * (dout[rows] @ v[keys].T - D[:, None])
            dq[rows] += scale * (ds @ k[keys])
            dk[keys] += scale * (ds.T @ q[rows])
            dv[keys] += p.T @ dout[rows]
    return dq, dk, dv


def tile(q, k, rows, first, block, scale):
    s = scale * (q[rows] @ k[first : first + block].T)
    t, j = np.arange(rows.start, rows.stop)[:, None], first + np.arange(s.shape[1])[None, :]
    return np.where(j <= t + len(q), s, -np.inf)
