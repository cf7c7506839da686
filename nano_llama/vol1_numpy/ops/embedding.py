"""Looking up a row per token: the first op of the model.

There are no position embeddings: RoPE rotates queries and keys instead. Tests: tests/vol1/test_ops_gradients.py.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache


def embedding_forward(tokens: Array, weight: Array) -> tuple[Array, Cache]:
    """y[n] = W[token n].    tokens: (...) integers in [0, V)   weight: (V, D)   -> y (..., D)

    The same as a linear op on one-hot rows, without multiplying by all the zeros.
    """
    return weight[tokens], (tokens, weight.shape)


def embedding_backward(dy: Array, cache: Cache) -> Array:
    """With y = E W, where E[n,v] = 1 if token n is v, linear_backward gives dW = E^T dy:

        dW[v] = sum of dy[n] over the places n where token v stood.

    A token that stood nowhere gets zero; one that stood twice gets both. Tokens have no gradient.  -> dweight (V, D)
    """
    tokens, shape = cache
    dweight = np.zeros(shape, dy.dtype)  # (V, D)
    np.add.at(dweight, tokens.reshape(-1), dy.reshape(-1, shape[1]))  # unlike dweight[tokens] += dy, adds repeats too
    return dweight


# -- the same, faster: skip it on a first reading ----------------------------------------------------------------------


def embedding_backward_fast(dy: Array, cache: Cache) -> Array:
    """The same sum, with equal tokens brought together by a stable sort, so that each row of W is written once."""
    tokens, shape = cache
    tokens = tokens.reshape(-1)
    dweight = np.zeros(shape, dy.dtype)  # (V, D)
    if tokens.size:
        order = np.argsort(tokens, kind="stable")
        ranked = tokens[order]
        starts = np.flatnonzero(np.diff(ranked, prepend=-1))  # where each distinct token begins
        dweight[ranked[starts]] = np.add.reduceat(dy.reshape(-1, shape[1])[order], starts, axis=0)
    return dweight
