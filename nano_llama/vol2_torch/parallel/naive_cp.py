"""Context parallelism in the plainest form: the ring of cp.py with send and recv, and the online softmax by its book.

Each rank holds the queries, keys and values of some positions, whichever they are. Keys and values go round; a rank
keeps, for each query, the largest score so far, the sum of exp(score - largest) and that of the values so weighted.
Nothing is sent while something is computed, and a score that is masked is computed all the same: cp.py does better.
Tests: tests/parallel/test_cp.py compares the two.

Shapes: B batch, H heads, N positions of this rank, K head dim. Key/value heads are repeated for their queries before.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup

MASKED = float("-inf")


class NaiveRing(torch.autograd.Function):
    """q, k, v (B,H,N,K), positions (N,) of this rank's tokens -> (B,H,N,K)"""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, positions: Tensor, group: ProcessGroup) -> Tensor:
        largest = q.new_full((*q.shape[:-1], 1), MASKED)  # (B,H,N,1)
        total, weighted = torch.zeros_like(largest), torch.zeros_like(q)  # (B,H,N,1), (B,H,N,K)
        block = [k, v, positions]
        for _ in range(group.size()):  # the first block is its own: in it each query sees at least itself
            keys, values, places = block
            scores = masked_scores(q, keys, positions, places)  # (B,H,N,N)
            larger = torch.maximum(largest, scores.amax(-1, keepdim=True))
            weights, shrink = (scores - larger).exp(), (largest - larger).exp()
            total = total * shrink + weights.sum(-1, keepdim=True)
            weighted = weighted * shrink + weights @ values
            largest = larger
            block = [pass_on(x, group) for x in block]
        out, lse = weighted / total, largest + total.log()
        ctx.save_for_backward(q, k, v, positions, out, lse)
        ctx.group = group
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, positions, out, lse = ctx.saved_tensors
        scale, subtracted = q.shape[-1] ** -0.5, (dout * out).sum(-1, keepdim=True)  # (B,H,N,1)
        dq = torch.zeros_like(q)
        block = [
            k,
            v,
            positions,
            torch.zeros_like(k),
            torch.zeros_like(v),
        ]  # gradients travel along
        for _ in range(ctx.group.size()):
            keys, values, places, dk, dv = block
            p = (masked_scores(q, keys, positions, places) - lse).exp()  # (B,H,N,N)
            ds = p * (dout @ values.mT - subtracted) * scale  # (B,H,N,N)
            dq += ds @ keys
            block = [pass_on(x, ctx.group) for x in (keys, values, places, dk + ds.mT @ q, dv + p.mT @ dout)]
        return dq, block[3], block[4], None, None  # after as many hops as there are ranks, each is at home again


def masked_scores(q: Tensor, k: Tensor, rows: Tensor, columns: Tensor) -> Tensor:  # (B,H,N,K) twice -> (B,H,N,N)
    return (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(rows[:, None] < columns, MASKED)


def pass_on(x: Tensor, group: ProcessGroup) -> Tensor:
    """Send x to the next rank of the ring -> what the rank before sent.  Ranks by turns, or all would wait to send."""
    rank, size = group.rank(), group.size()
    after, before = (dist.get_global_rank(group, (rank + step) % size) for step in (1, -1))
    received = torch.empty_like(x)
    if rank % 2 == 0:
        dist.send(x.contiguous(), after, group)
        dist.recv(received, before, group)
    else:
        dist.recv(received, before, group)
        dist.send(x.contiguous(), after, group)
    return received
