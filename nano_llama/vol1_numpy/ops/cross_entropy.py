"""Cross-entropy of next-token targets: the loss, in nats per token.

Tests: tests/vol1/test_ops_cross_entropy.py.
Sources: the loss, Shannon 1948; z_loss, Chowdhery et al. 2022, "PaLM" (arXiv 2204.02311), section 5.
"""

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol1_numpy.ops.array import Array, Cache, row_tiles


def cross_entropy_forward(
    logits: Array, targets: Array, ignore_index: int = IGNORE_INDEX, z_loss: float = 0.0
) -> tuple[float, Cache]:
    """loss = mean over counted rows of  lse - logits[target] + z_loss * lse^2,   lse = log sum_v exp(logits[v]).

    logits: (..., V)   targets: (...) integers; rows whose target is `ignore_index` do not count   -> loss, a float

    -log softmax(x)[t] = lse - x[t]; with the maximum m taken out, lse = m + log sum exp(x - m) cannot overflow.
    z_loss > 0 pulls lse towards 0, that is, keeps the logits from drifting. No row counted: the loss is 0.
    Raises UserError when a counted target lies outside [0, V).
    """
    logits_2d, targets, counted = counted_rows(logits, targets, ignore_index)
    m = np.max(logits_2d, axis=-1, keepdims=True)  # (N,1)
    e = np.exp(logits_2d - m)  # (N,V)
    total = np.sum(e, axis=-1, keepdims=True)  # (N,1)
    lse = (m + np.log(total))[:, 0]  # (N,)
    losses = lse - logits_2d[np.arange(len(targets)), targets] + z_loss * lse**2  # (N,)
    count = int(np.count_nonzero(counted))
    loss = float(np.sum(losses, where=counted, dtype=np.float64)) / max(count, 1)
    return loss, (e / total, lse, targets, counted, count, z_loss, logits.shape)


def cross_entropy_backward(dloss: float, cache: Cache) -> Array:
    """For one counted row, with p = softmax(x):   d lse / dx_v = exp(x_v) / sum exp(x) = p_v,   so

        d loss / dx_v = (p_v - 1[v = target] + 2 z_loss lse p_v) / count

    and 0 for rows that do not count. Targets have no gradient.  dloss: a scalar  -> dlogits (..., V)
    """
    p, lse, targets, counted, count, z_loss, shape = cache
    dlogits = p * (1 + 2 * z_loss * lse[:, None])  # (N,V)
    dlogits[np.arange(len(targets)), targets] -= 1
    dlogits *= (counted * (dloss / max(count, 1))).astype(p.dtype)[:, None]
    return dlogits.reshape(shape)


def counted_rows(logits: Array, targets: Array, ignore_index: int) -> tuple[Array, Array, Array]:
    """logits as (N,V), targets as (N,) with 0 in place of `ignore_index`, and which rows count, (N,) booleans."""
    V = logits.shape[-1]
    targets = np.asarray(targets).reshape(-1)
    counted = targets != ignore_index
    wrong = counted & ((targets < 0) | (targets >= V))
    if wrong.any():
        raise UserError(
            f"cross_entropy: the target {targets[wrong][0]} is not a token of this vocabulary of {V}.",
            hint=f"Targets are 0 to {V - 1}, or {ignore_index} for positions that do not count.",
        )
    return logits.reshape(-1, V), np.where(counted, targets, 0), counted


# -- the same, faster: skip it on a first reading ----------------------------------------------------------------------


def cross_entropy_forward_fast(
    logits: Array, targets: Array, ignore_index: int = IGNORE_INDEX, z_loss: float = 0.0
) -> tuple[float, Cache]:
    """The same, tile by tile. exp(x - m) is kept as it is: dividing by its sum joins the backward's other factors."""
    logits_2d, targets, counted = counted_rows(logits, targets, ignore_index)
    e = np.empty(logits_2d.shape, logits.dtype)  # (N,V)
    total, lse = np.empty(len(e), e.dtype), np.empty(len(e), e.dtype)  # (N,)
    for rows in row_tiles(*e.shape):
        m = np.max(logits_2d[rows], axis=-1, keepdims=True)
        np.subtract(logits_2d[rows], m, out=e[rows])
        np.exp(e[rows], out=e[rows])
        np.sum(e[rows], axis=-1, out=total[rows])
        lse[rows] = m[:, 0] + np.log(total[rows])
    losses = lse - logits_2d[np.arange(len(targets)), targets] + z_loss * lse**2
    count = int(np.count_nonzero(counted))
    loss = float(np.sum(losses, where=counted, dtype=np.float64)) / max(count, 1)
    return loss, ([e], total, lse, targets, counted, count, z_loss, logits.shape)


def cross_entropy_backward_fast(dloss: float, cache: Cache) -> Array:
    """The same in place: the kept exponentials, by far the model's largest array, become the gradient. Once only."""
    kept, total, lse, targets, counted, count, z_loss, shape = cache
    assert kept, "the exponentials are used up: a fast cross-entropy's cache serves one backward"
    dlogits = kept.pop()  # (N,V)
    each = (counted * (dloss / max(count, 1))).astype(dlogits.dtype)  # (N,): dloss / count, or 0
    dlogits *= (each * (1 + 2 * z_loss * lse) / total)[:, None]
    dlogits[np.arange(len(targets)), targets] -= each
    return dlogits.reshape(shape)
