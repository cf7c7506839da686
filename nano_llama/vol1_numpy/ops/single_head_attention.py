"""Attention of one head over one sequence: the form to read first. Every other form computes this, many times over.

Tests: tests/vol1/test_ops_attention.py.
Source: Vaswani et al. 2017, "Attention Is All You Need" (arXiv 1706.03762), eq. 1.
"""

import math

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.softmax import softmax_backward, softmax_forward


def single_head_attention_forward(q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, Cache]:
    """out = P v,  P = softmax(q k^T / sqrt(K)).

    q: (T,K)   k: (S,K)   v: (S,K')   mask: (T,S), True where query t may attend to key s; None: everywhere
    -> out (T,K')

    1/sqrt(K): the product of two vectors of K independent entries with variance 1 has variance K; dividing by its
    standard deviation keeps the softmax away from its flat ends, where gradients vanish (the paper's footnote 4).
    A query that may attend to nothing gets zeros.
    """
    scale = 1 / math.sqrt(q.shape[-1])
    scores = scale * (q @ k.T)  # (T,S)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    weights, softmax_cache = softmax_forward(scores)  # (T,S)
    return weights @ v, (q, k, v, weights, softmax_cache, scale)


def single_head_attention_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """The forward's three steps in reverse.

        out = P v          a product:   dP = dout v^T,   dv = P^T dout                      (linear_backward)
        P = softmax(Z)     row by row:  dZ = P (dP - sum_s dP P)                            (softmax_backward)
        Z = q k^T / c      a product:   dq = dZ k / c,   dk = dZ^T q / c                    with c = sqrt(K)

    Where the mask forbids, P = 0 and so dZ = 0: the replaced score gets nothing, as it must.
    -> dq (T,K), dk (S,K), dv (S,K')
    """
    q, k, v, weights, softmax_cache, scale = cache
    dweights = dout @ v.T  # (T,S)
    dv = weights.T @ dout  # (S,K')
    dscores = softmax_backward(dweights, softmax_cache)  # (T,S)
    dq = scale * (dscores @ k)  # (T,K)
    dk = scale * (dscores.T @ q)  # (S,K)
    return dq, dk, dv
