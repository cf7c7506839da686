"""Attention by blocks of queries: what the model runs. Its reference is attention.py, whose derivation holds here.

A block of queries against all keys it may see is a few hundred kilobytes: it is scored, normalized and summed while it
lies in a core's cache, and what a causal mask forbids beyond the block's last query is never computed. Each row is seen
whole, so its softmax needs no running maximum, unlike flash_attention.py's. Tests: tests/vol1/test_ops_attention.py.
"""

import math
from collections.abc import Iterator

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.attention import check_shapes, per_group

SCORES_PER_TILE = 1 << 17  # 512 KiB in float32, about a core's L2 cache
MAX_KEPT_KEYS = 512  # up to here the weights are kept for the backward; beyond, memory must not grow with T^2


def tiled_attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None, block: int = 64
) -> tuple[Array, Cache]:
    """As attention_forward:  q (B,H,T,K)   k (B,G,S,K)   v (B,G,S,K')   mask: to (B,1,T,S)   -> out (B,H,T,K')"""
    check_shapes(q, k, v, mask)
    (B, H, T, K), (_, G, S, _) = q.shape, k.shape
    q = q.reshape(B, G, H // G, T, K) * (1 / math.sqrt(K))  # (B,G,R,T,K)
    k, v = k[:, :, None], v[:, :, None]  # (B,G,1,S,K), (B,G,1,S,K')
    tiles = QueryTiles(mask, q, k, block)
    # (B,G,R,T,K'), in memory as q: when the heads of q are views of rows, these are too
    out = np.empty_like(q) if v.shape[-1] == K else np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    inverse = np.empty((*q.shape[:-1], 1), q.dtype)  # (B,G,R,T,1)
    kept = []
    for b, rows, seen in tiles:
        e, l = exponentials(tiles.scores(q, k, b, rows, seen))  # (b,G,R,block,seen), (b,G,R,block,1)
        inverse[b, ..., rows, :] = 1 / l
        out[b, ..., rows, :] = e @ v[b, ..., seen, :] * inverse[b, ..., rows, :]  # (block,K) factors, not (block,S)
        kept.append(e if S <= MAX_KEPT_KEYS else None)
    return out.reshape(B, H, T, v.shape[-1]), (q, k, v, inverse, tiles, kept)


def tiled_attention_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """attention_backward, a block of queries at a time. The weights are P = e / l; 1/l is constant along a row, so it
    may go into dout, (block,K) numbers, instead of P, (block,S) numbers. With d = dout / l:

        dv = P^T dout = e^T d
        dS = P (dP - sum_s P dP) = e (u - r / l),   u = d v^T = dP / l,   r = sum_s e u = sum_s P dP

    The scale 1/sqrt(K) is in the kept q, so dk needs none, and dq gets it at the end.
    -> dq (B,H,T,K), dk (B,G,S,K), dv (B,G,S,K')
    """
    q, k, v, inverse, tiles, kept = cache
    B, H, T, _ = dout.shape
    scaled = dout.reshape(*q.shape[:-1], dout.shape[-1]) * inverse  # (B,G,R,T,K')
    dq, dk, dv = np.empty_like(q), np.zeros_like(k[:, :, 0]), np.zeros_like(v[:, :, 0])
    for (b, rows, seen), e in zip(tiles, kept, strict=True):
        if e is None:
            e, _ = exponentials(tiles.scores(q, k, b, rows, seen))  # (b,G,R,block,seen)
        d = scaled[b, ..., rows, :]  # (b,G,R,block,K)
        dv[b, :, seen] += over_group(e.swapaxes(-1, -2) @ d)
        ds = d @ v[b, ..., seen, :].swapaxes(-1, -2)  # (b,G,R,block,seen)
        ds -= np.vecdot(e, ds)[..., None] * inverse[b, ..., rows, :]
        ds *= e
        dk[b, :, seen] += over_group(ds.swapaxes(-1, -2) @ q[b, ..., rows, :])
        dq[b, ..., rows, :] = ds @ k[b, ..., seen, :]
    dq *= 1 / math.sqrt(q.shape[-1])
    return dq.reshape(B, H, T, q.shape[-1]), dk, dv


def exponentials(s: Array) -> tuple[Array, Array]:
    """e = exp(s - m) in place of s (..., S), and its row sums l (..., 1), where m is the row's maximum.

    A row of -inf gives zeros, and l = 1. A row with a single key gives exactly e = l = 1, and with that no gradient.
    """
    m = s.max(axis=-1, keepdims=True, initial=-np.inf)
    m[np.isneginf(m)] = 0
    s -= m
    np.exp(s, out=s)
    l = s @ np.ones((s.shape[-1], 1), s.dtype)  # a product with ones is NumPy's fastest sum of rows
    l[l == 0] = 1
    return s, l


class QueryTiles:
    """Which rows of the batch, which queries, and which keys those see, so that a tile's scores fit into a cache."""

    def __init__(self, mask: Array | None, q: Array, k: Array, block: int):
        (B, G, R, T, _), S = q.shape, k.shape[3]
        self.bias = None
        # a block of queries, the keys that they see, and where among these the mask begins to matter
        self.spans = [(rows, slice(0, S), S) for rows in _blocks(T, block)]
        if mask is not None:
            mask = per_group(mask)  # (B|1,1,1,T,S)
            mask = np.broadcast_to(mask, (*mask.shape[:3], T, S))
            self.bias = np.zeros(mask.shape, q.dtype)  # added to scores: sooner than choosing between two arrays
            self.bias[~mask] = -np.inf
            self.spans = [(rows, *_span(mask[..., rows, :])) for rows in _blocks(T, block)]
        self.masked_from = {rows.start: start for rows, _, start in self.spans}
        self.batch = _blocks(B, max(1, SCORES_PER_TILE // max(1, G * R * min(block, T) * S)))

    def __iter__(self) -> Iterator[tuple[slice, slice, slice]]:
        for b in self.batch:
            for rows, seen, _ in self.spans:
                yield b, rows, seen

    def scores(self, q: Array, k: Array, b: slice, rows: slice, seen: slice) -> Array:
        """q k^T of one tile, -inf where the mask forbids.    -> (b,G,R,block,seen)"""
        s = q[b, ..., rows, :] @ k[b, ..., seen, :].swapaxes(-1, -2)
        if self.bias is not None:
            start = self.masked_from[rows.start]
            bias = self.bias[b if len(self.bias) > 1 else slice(None), ..., rows, start : seen.stop]
            s[..., start - seen.start :] += bias
        return s


def over_group(x: Array) -> Array:
    """The sum over the query heads that share a key/value head: (b,G,R,S,K) -> (b,G,S,K)."""
    return x[:, :, 0] if x.shape[2] == 1 else x.sum(axis=2)


def _span(mask: Array) -> tuple[slice, int]:
    """Of some queries' mask (B,1,1,block,S): the keys from the first to the last that any of them sees, and the first
    of these that not all of them see. Up to there the mask does not matter.
    """
    mask = mask.reshape(-1, mask.shape[-1])  # (B*block,S)
    seen = np.flatnonzero(np.any(mask, axis=0))
    start, stop = (int(seen[0]), int(seen[-1]) + 1) if seen.size else (0, 0)
    hidden = np.flatnonzero(~np.all(mask[:, start:stop], axis=0))
    return slice(start, stop), start + int(hidden[0]) if hidden.size else stop


def _blocks(length: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, length)) for start in range(0, length, block)]
