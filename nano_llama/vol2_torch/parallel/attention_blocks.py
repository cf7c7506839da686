"""Attention to one block of keys, and how two such blocks become attention to both: the parts of context parallelism.

A softmax needs all scores of a query, but they need not be there at once. Attention to some of the keys, kept with the
logarithm of its denominator (lse, log sum exp of the scores), can be merged with attention to others later; and in
the backward pass lse alone gives each probability back, exp(score - lse). Milakov and Gimelshein 2018 (arXiv
1805.02867); Dao et al. 2022 (arXiv 2205.14135).

`plain_block` and `plain_block_backward` are the formulas, on any device. On the CPU `attend_block` and its backward
call the kernel that torch's own attention runs there, which never holds all the scores.
Tests: tests/parallel/test_attention_blocks.py.

Shapes: B batch, H query heads, G key/value heads, R = H / G queries that share one, T queries, S keys, K head dim.
"""

import torch
from torch import Tensor

aten = torch.ops.aten


def attend_block(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """q (B,H,T,K), k and v (B,G,S,K) -> out (B,H,T,K), lse (B,H,T), which is float32 where q is of half precision.

    causal: query i sees the keys up to i, and T = S; otherwise it sees all.
    """
    if q.device.type != "cpu":
        return plain_block(q, k, v, causal)
    return aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal)


def attend_block_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """What this block contributes to dq, dk and dv.  out, lse: the merged ones, over all blocks that q has seen."""
    if q.device.type != "cpu":
        return plain_block_backward(dout, q, k, v, out, lse, causal)
    return aten._scaled_dot_product_flash_attention_for_cpu_backward(dout, q, k, v, out, lse, 0.0, causal)


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to two disjoint sets of keys -> attention to both.  out, more (B,H,T,K), lse, more_lse (B,H,T)

    Each is an average of values, weighted by what share of the common denominator is its own.
    """
    both = torch.logaddexp(lse, more_lse)  # (B,H,T)
    share, more_share = (lse - both).exp()[..., None], (more_lse - both).exp()[..., None]  # (B,H,T,1), their sum is 1
    return out * share + more * more_share, both


def plain_block(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """lse = log sum_j exp(q k_j / sqrt(K)),  out = sum_j exp(q k_j / sqrt(K) - lse) v_j"""
    scores = _scores(q, k, causal)  # (B,G,R,T,S)
    lse = torch.logsumexp(scores, -1)  # (B,G,R,T)
    out = (scores - lse[..., None]).exp() @ v[:, :, None].to(lse.dtype)  # (B,G,R,T,K)
    return out.flatten(1, 2).to(q.dtype), lse.flatten(1, 2)


def plain_block_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, causal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """With p_ij = exp(s_ij - lse_i):  dv_j = sum_i p_ij dout_i,  ds_ij = p_ij (dout_i v_j - dout_i out_i).

    dout_i out_i is what the softmax's own backward subtracts, sum_j p_ij dp_ij, over all blocks at once: it needs no
    other block's scores. A key/value head takes the gradients of all R queries that share it.
    """
    G, scale = k.shape[1], q.shape[-1] ** -0.5
    scores = _scores(q, k, causal)  # (B,G,R,T,S)
    q, dout, out = (x.unflatten(1, (G, -1)).to(scores.dtype) for x in (q, dout, out))  # (B,G,R,T,K)
    p = (scores - lse.unflatten(1, (G, -1))[..., None]).exp()  # (B,G,R,T,S)
    dp = dout @ v[:, :, None].mT.to(p.dtype)  # (B,G,R,T,S)
    ds = p * (dp - (dout * out).sum(-1, keepdim=True)) * scale  # (B,G,R,T,S)
    dq = (ds @ k[:, :, None].to(p.dtype)).flatten(1, 2)  # (B,H,T,K)
    dk, dv = (ds.mT @ q).sum(2), (p.mT @ dout).sum(2)  # (B,G,S,K)
    return dq.to(k.dtype), dk.to(k.dtype), dv.to(k.dtype)


def _scores(q: Tensor, k: Tensor, causal: bool) -> Tensor:  # (B,H,T,K), (B,G,S,K) -> (B,G,R,T,S), at least float32
    q = q.unflatten(1, (k.shape[1], -1))  # (B,G,R,T,K)
    scores = (q @ k[:, :, None].mT).to(torch.promote_types(q.dtype, torch.float32)) * q.shape[-1] ** -0.5
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)  # (T,S)
        scores = scores.masked_fill(hidden, float("-inf"))
    return scores
