"""Attention tile by tile, without the T x T matrix: the same numbers as attention.py in memory that grows with T only.

The plain form and its derivation are in attention.py and single_head_attention.py.
Tests: tests/vol1/test_ops_attention.py.
Sources: the online softmax, Milakov and Gimelshein 2018 (arXiv 1805.02867), algorithm 3; the tiles and the backward
by recomputation, Dao et al. 2022, "FlashAttention" (arXiv 2205.14135), algorithms 1 and 4, in the loop order of
Dao 2023, "FlashAttention-2" (arXiv 2307.08691), algorithms 1 and 2.

A softmax needs its row's maximum and sum before it can weigh anything. Online, both are kept as running values: after
some tiles of keys we hold, for each query,

    m = max of the scores so far,   l = sum exp(score - m),   o = sum exp(score - m) v.

A new tile with maximum m' may raise the maximum to n = max(m, m'). Since exp(s - n) = exp(s - m) exp(m - n), the old
l and o are multiplied by exp(m - n), and the tile's own sums over exp(s - n) are added. At the end out = o / l. The
backward recomputes each tile's weights from one number per query, lse = m + log l:  P = exp(s - lse).

A tile in which the mask allows nothing is skipped: for a causal mask, half of the work.
"""

import math

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.attention import check_shapes, per_group


def flash_attention_forward(
    q: Array, k: Array, v: Array, mask: Array | None = None, block: int = 64
) -> tuple[Array, Cache]:
    """out = softmax(q k^T / sqrt(K)) v, by tiles of `block` queries by `block` keys.

    As attention_forward:  q (B,H,T,K)   k (B,G,S,K)   v (B,G,S,K')   mask: boolean, to (B,1,T,S)   -> out (B,H,T,K').
    log_sum_exp(cache) is each query's log of the sum of its scores' exponentials.
    """
    check_shapes(q, k, v, mask)
    (B, H, T, K), (_, G, S, _) = q.shape, k.shape
    q = q.reshape(B, G, H // G, T, K) * (1 / math.sqrt(K))  # (B,G,R,T,K), scaled once for all tiles
    k, v = k[:, :, None], v[:, :, None]  # (B,G,1,S,K), (B,G,1,S,K')
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)  # (B,G,R,T,K')
    lse = np.empty((*q.shape[:-1], 1), q.dtype)  # (B,G,R,T,1)
    tiles = QueryKeyTiles(mask, T, S, block)
    for rows in tiles.query_blocks():
        m = np.full((B, G, H // G, rows.stop - rows.start, 1), -np.inf, q.dtype)  # (B,G,R,block,1)
        l = np.zeros_like(m)
        o = np.zeros((*m.shape[:-1], v.shape[-1]), q.dtype)  # (B,G,R,block,K')
        for columns in tiles.key_blocks(rows):
            s = tiles.scores(q, k, rows, columns)  # (B,G,R,block,block)
            n = np.maximum(m, s.max(axis=-1, keepdims=True))
            finite = np.where(np.isneginf(n), 0, n)  # nothing allowed so far: any finite number keeps exp(-inf) = 0
            p = np.exp(s - finite)
            old = np.exp(m - finite)
            l = l * old + p.sum(axis=-1, keepdims=True)
            o = o * old + p @ v[..., columns, :]
            m = n
        empty = l == 0
        out[..., rows, :] = o / np.where(empty, 1, l)
        lse[..., rows, :] = np.where(empty, np.inf, m + np.log(np.where(empty, 1, l)))  # inf: P = exp(s - inf) = 0
    return out.reshape(B, H, T, v.shape[-1]), (q, k, v, out, lse, tiles)


def flash_attention_backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """single_head_attention_backward by tiles:  dP = dout v^T,  dS = P (dP - sum_s dP P),  dv = P^T dout, ...

    The row sum would need a whole row of dP, but it is known beforehand, from (T,K) arrays alone:

        sum_s dP[t,s] P[t,s] = sum_s sum_k dout[t,k] v[s,k] P[t,s] = sum_k dout[t,k] out[t,k]

    (Where one tile holds the whole row it is summed as it stands: a query with a single key then gets exactly zero.)
    The rest is a sum over tiles: a tile adds dS k to its queries' dq, and dS^T q and P^T dout to its keys' dk and dv.
    q comes scaled by 1/sqrt(K) from the forward, so dk needs no factor, and dq gets it at the end.

    -> dq (B,H,T,K), dk (B,G,S,K), dv (B,G,S,K')
    """
    q, k, v, out, lse, tiles = cache
    B, H, T, _ = dout.shape
    dout = dout.reshape(*q.shape[:-1], dout.shape[-1])  # (B,G,R,T,K')
    dq, dk, dv = np.zeros_like(q), np.zeros_like(k[:, :, 0]), np.zeros_like(v[:, :, 0])
    for rows in tiles.query_blocks():
        row_sums = np.sum(dout[..., rows, :] * out[..., rows, :], axis=-1, keepdims=True)  # (B,G,R,block,1)
        live = tiles.key_blocks(rows)
        for columns in live:
            p = np.exp(tiles.scores(q, k, rows, columns) - lse[..., rows, :])  # (B,G,R,block,block)
            dp = dout[..., rows, :] @ v[..., columns, :].swapaxes(-1, -2)  # (B,G,R,block,block)
            if len(live) == 1:
                row_sums = np.sum(p * dp, axis=-1, keepdims=True)
            ds = p * (dp - row_sums)
            dv[..., columns, :] += np.sum(p.swapaxes(-1, -2) @ dout[..., rows, :], axis=2)
            dk[..., columns, :] += np.sum(ds.swapaxes(-1, -2) @ q[..., rows, :], axis=2)
            dq[..., rows, :] += ds @ k[..., columns, :]
    dq *= 1 / math.sqrt(q.shape[-1])
    return dq.reshape(B, H, T, q.shape[-1]), dk, dv


def log_sum_exp(cache: Cache) -> Array:
    """log sum_s exp(q_t k_s / sqrt(K)) of each query, from flash_attention_forward's cache; -inf where it sees no key.

    With it, attentions over different keys merge into one: weigh their outputs by exp(lse_i - lse).   -> (B,H,T)
    """
    lse = cache[4]
    B, G, R, T, _ = lse.shape
    return np.where(np.isposinf(lse), -np.inf, lse).reshape(B, G * R, T)


class QueryKeyTiles:
    """The blocks of queries and keys, and which pairs of them a mask leaves alive."""

    def __init__(self, mask: Array | None, num_queries: int, num_keys: int, block: int):
        if mask is not None:
            mask = per_group(mask)  # (B|1,1,1,T,S)
            mask = np.broadcast_to(mask, (*mask.shape[:3], num_queries, num_keys))
        self.mask, self.num_queries, self.num_keys, self.block = mask, num_queries, num_keys, block

    def query_blocks(self) -> list[slice]:
        return _blocks(self.num_queries, self.block)

    def key_blocks(self, rows: slice) -> list[slice]:
        """The blocks of keys to which at least one query of `rows` may attend."""
        blocks = _blocks(self.num_keys, self.block)
        return blocks if self.mask is None else [c for c in blocks if self.mask[..., rows, c].any()]

    def scores(self, q: Array, k: Array, rows: slice, columns: slice) -> Array:
        """q k^T of one tile, -inf where the mask forbids.    -> (B,G,R,block,block)"""
        s = q[..., rows, :] @ k[..., columns, :].swapaxes(-1, -2)
        if self.mask is not None:
            allowed = self.mask[..., rows, columns]
            if not allowed.all():
                s = np.where(allowed, s, -np.inf)
        return s


def _blocks(length: int, block: int) -> list[slice]:
    return [slice(start, min(start + block, length)) for start in range(0, length, block)]
