"""Attention by blocks of queries: what the model runs. The plain twin is attention.py, whose derivation holds here.

A block of queries against all keys it may see is a few hundred kilobytes: it is scored, normalized and summed while it
lies in a core's cache, and what a causal mask forbids beyond the block's last query is never computed. Memory grows
with T, as for flash_attention.py; but each row is seen whole, so its softmax needs no running maximum.
Not here: blocks of keys (flash_attention.py). Tests: tests/vol1/test_ops_attention.py.
"""

import math
from collections.abc import Iterator

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.attention import per_group

TILE = 1 << 17  # scores at once: 512 KiB in float32, about a core's second cache


def tiled_attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None, block: int = 64
) -> tuple[Array, Cache]:
    """As attention_forward.    q: (B,H,T,K)   k, v: (B,G,S,K)   mask: boolean, to (B,1,T,S)   -> out (B,H,T,K)"""
    B, H, T, K = q.shape
    G = k.shape[1]
    q = q.reshape(B, G, H // G, T, K) * (1 / math.sqrt(K))  # (B,G,R,T,K)
    k, v = k[:, :, None], v[:, :, None]  # (B,G,1,S,K)
    tiles = Tiles(mask, q, k, block)
    out = np.empty_like(q)  # (B,G,R,T,K), in memory as q: when the heads of q are views of rows, these are too
    lse = np.empty((*q.shape[:-1], 1), q.dtype)  # (B,G,R,T,1)
    for b, rows, seen, s in tiles.scores(q, k):  # s: (b,G,R,block,seen)
        m = s.max(axis=-1, keepdims=True, initial=-np.inf)
        m[np.isneginf(m)] = 0  # a query that sees nothing: exp(-inf - 0) = 0
        s -= m
        np.exp(s, out=s)
        l = s.sum(axis=-1, keepdims=True)
        l[l == 0] = 1
        out[b, ..., rows, :] = s @ v[b, ..., seen, :] / l  # dividing (block,K) numbers, not (block,S)
        lse[b, ..., rows, :] = m + np.log(l)
    return out.reshape(B, H, T, K), (q, k, v, lse, tiles)


def tiled_attention_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """attention_backward, a block of queries at a time; its weights are made again from their log-sum-exp,

        P = exp(s - m) / l = exp(s - lse).

    The scale 1/sqrt(K) is in the kept q, so dk needs none, and dq gets it at the end.
    -> dq (B,H,T,K), dk (B,G,S,K), dv (B,G,S,K)
    """
    q, k, v, lse, tiles = cache
    shape = dout.shape
    dout = dout.reshape(q.shape)  # (B,G,R,T,K)
    dq, dk, dv = np.empty_like(q), np.zeros_like(k[:, :, 0]), np.zeros_like(v[:, :, 0])
    for b, rows, seen, p in tiles.scores(q, k):  # p: (b,G,R,block,seen)
        p -= lse[b, ..., rows, :]
        np.exp(p, out=p)
        do = dout[b, ..., rows, :]  # (b,G,R,block,K)
        dv[b, :, seen] += over_group(p.swapaxes(-1, -2) @ do)
        ds = do @ v[b, ..., seen, :].swapaxes(-1, -2)  # dP
        ds -= np.vecdot(ds, p)[..., None]
        ds *= p
        dk[b, :, seen] += over_group(ds.swapaxes(-1, -2) @ q[b, ..., rows, :])
        dq[b, ..., rows, :] = ds @ k[b, ..., seen, :]
    dq *= 1 / math.sqrt(shape[-1])
    return dq.reshape(shape), dk, dv


class Tiles:
    """Which rows of the batch, which queries, and which keys those see, so that a tile's scores fit into a cache."""

    def __init__(self, mask: Array | None, q: Array, k: Array, block: int):
        (B, G, R, T, _), S = q.shape, k.shape[3]
        self.bias = None
        # a block of queries, the keys that they see, and those of the keys where the mask matters
        self.spans = [(rows, slice(0, S), slice(S, S)) for rows in _blocks(T, block)]
        if mask is not None:
            mask = per_group(mask)  # (B|1,1,1,T,S)
            mask = np.broadcast_to(mask, (*mask.shape[:3], T, S))
            self.bias = np.zeros(mask.shape, q.dtype)  # added to scores: sooner than choosing between two arrays
            self.bias[~mask] = -np.inf
            self.spans = [(rows, *_spans(mask[..., rows, :])) for rows in _blocks(T, block)]
        self.batch = _blocks(B, max(1, TILE // max(1, G * R * min(block, T) * S)))

    def scores(self, q: Array, k: Array) -> Iterator[tuple[slice, slice, slice, Array]]:
        """Each tile's rows of the batch, queries, keys, and q k^T (b,G,R,block,seen), -inf where the mask forbids."""
        for b in self.batch:
            for rows, seen, masked in self.spans:
                s = q[b, ..., rows, :] @ k[b, ..., seen, :].swapaxes(-1, -2)
                if self.bias is not None:
                    bias = self.bias[b if len(self.bias) > 1 else slice(None), ..., rows, masked]
                    s[..., masked.start - seen.start :] += bias
                yield b, rows, seen, s


def over_group(x: Array) -> Array:
    """The sum over the query heads that share a key/value head: (b,G,R,S,K) -> (b,G,S,K)."""
    return x[:, :, 0] if x.shape[2] == 1 else x.sum(axis=2)


def _spans(mask: Array) -> tuple[slice, slice]:
    """Of some queries' mask (B,1,1,block,S): the keys from the first to the last that any of them sees, and those from
    the first that not all of them see, where the mask matters. For a causal mask that is the block itself.
    """
    mask = mask.reshape(-1, mask.shape[-1])  # (B*block,S)
    seen = np.flatnonzero(np.any(mask, axis=0))
    start, stop = (int(seen[0]), int(seen[-1]) + 1) if seen.size else (0, 0)
    hidden = np.flatnonzero(~np.all(mask[:, start:stop], axis=0))
    return slice(start, stop), slice(start + int(hidden[0]) if hidden.size else stop, stop)


def _blocks(length: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, length)) for start in range(0, length, block)]
