"""Attention of all heads over a batch, the plain form: single_head_attention on two more axes, with shared K/V heads.

Two forms do without the T x T matrix: tiled_attention.py, which the model runs, and flash_attention.py, which never
sees a whole row. Tests: tests/vol1/test_ops_attention.py.
Source: Vaswani et al. 2017 (arXiv 1706.03762), section 3.2; shared heads: Shazeer 2019 (arXiv 1911.02150, MQA) and
Ainslie et al. 2023 (arXiv 2305.13245, GQA).
"""

import math

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.softmax import softmax_backward, softmax_forward


def attention_forward(q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, Cache]:
    """out = softmax(q k^T / sqrt(K)) v for every batch entry and head; query head h reads key/value head h // R.

    q: (B,H,T,K)   k: (B,G,S,K)   v: (B,G,S,K'), R = H / G, K' = K in a LLaMA
    mask: boolean, broadcastable to (B,1,T,S), True may attend; None: all
    -> out (B,H,T,K'). A query that may attend to nothing gets zeros.
    Raises UserError for shapes that do not match, and for a mask of another shape or dtype.
    """
    check_shapes(q, k, v, mask)
    B, H, T, K = q.shape
    G = k.shape[1]
    scale = 1 / math.sqrt(K)
    grouped = q.reshape(B, G, H // G, T, K)  # (B,G,R,T,K): the query heads of a group side by side
    k, v = k[:, :, None], v[:, :, None]  # (B,G,1,S,K): one for all R of them
    scores = scale * (grouped @ k.swapaxes(-1, -2))  # (B,G,R,T,S)
    if mask is not None:
        scores = np.where(per_group(mask), scores, -np.inf)
    weights, softmax_cache = softmax_forward(scores)  # (B,G,R,T,S)
    out = weights @ v  # (B,G,R,T,K')
    return out.reshape(B, H, T, v.shape[-1]), (grouped, k, v, weights, softmax_cache, scale)


def attention_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """single_head_attention_backward for every head. A shared key/value head acts through all R query heads of its
    group, so its gradient is the sum of theirs. The mask has no gradient.

    -> dq (B,H,T,K), dk (B,G,S,K), dv (B,G,S,K')
    """
    q, k, v, weights, softmax_cache, scale = cache
    B, H, T, _ = dout.shape
    dout = dout.reshape(*q.shape[:-1], dout.shape[-1])  # (B,G,R,T,K')
    dweights = dout @ v.swapaxes(-1, -2)  # (B,G,R,T,S)
    dv = np.sum(weights.swapaxes(-1, -2) @ dout, axis=2)  # (B,G,S,K')
    dscores = softmax_backward(dweights, softmax_cache)  # (B,G,R,T,S)
    dq = scale * (dscores @ k)  # (B,G,R,T,K)
    dk = scale * np.sum(dscores.swapaxes(-1, -2) @ q, axis=2)  # (B,G,S,K)
    return dq.reshape(B, H, T, q.shape[-1]), dk, dv


def attention_weights(cache: Cache) -> Array:
    """Who attended to whom, from attention_forward's cache.    -> (B,H,T,S), each row sums to 1 (or is all zeros)"""
    weights = cache[3]
    B, G, R, T, S = weights.shape
    return weights.reshape(B, G * R, T, S)


def check_shapes(q: Array, k: Array, v: Array, mask: Array | None) -> None:
    """Raise UserError unless q (B,H,T,K), k (B,G,S,K), v (B,G,S,K') and the mask match."""
    shapes = f"q {q.shape}, k {k.shape}, v {v.shape}"
    if not (q.ndim == k.ndim == v.ndim == 4 and q.shape[0] == k.shape[0] and q.shape[3] == k.shape[3]):
        raise UserError(f"attention: {shapes}: expected q (B,H,T,K), k (B,G,S,K) and v (B,G,S,K').")
    if k.shape[:3] != v.shape[:3] or q.shape[1] % k.shape[1]:
        raise UserError(f"attention: {shapes}: k and v share (B,G,S), and H is a multiple of G.")
    if mask is not None:
        check_mask(mask, (q.shape[0], 1, q.shape[2], k.shape[2]))


def check_mask(mask: Array, shape: tuple[int, ...]) -> None:
    """Raise UserError unless the mask is boolean and broadcasts to `shape`, (B,1,T,S)."""
    if mask.dtype != bool:
        raise UserError(
            f"attention: the mask is {mask.dtype}; expected booleans, True where a query may attend.",
            hint="For zeros and ones: mask.astype(bool).",
        )
    try:
        fits = np.broadcast_shapes(mask.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise UserError(
            f"attention: the mask has shape {mask.shape}, which does not broadcast to (B,1,T,S) = {shape}.",
            hint="Pass a mask per sequence, (B,T,S), as mask[:, None]; masks.py has the usual ones.",
        )


def per_group(mask: Array) -> Array:
    """Bring a mask that broadcasts to (B,1,T,S) to (B,1,1,T,S), beside the scores' (B,G,R,T,S)."""
    return mask.reshape((1,) * (4 - mask.ndim) + mask.shape)[:, :, None]
