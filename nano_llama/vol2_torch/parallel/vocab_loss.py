"""The training loss where each rank has V/w rows of the head: no rank ever holds all logits of a position.

Three numbers per position travel: the ranks' largest log-sum-exp, the sum of what they add to it, and the target's
logit, which one of them has. Otherwise as vol2_torch/loss.py's chunked_head_loss, chunks and gradient included.
Shoeybi et al. 2019 (arXiv 1909.08053), section 3. Tests: tests/parallel/test_training.py.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.loss import CHUNK_BYTES, widened


@dataclass(frozen=True)
class VocabParallelLoss:
    """A head_loss for a model that is cut by tp.py: (hidden (N,D), weight (V,D) cut by rows, targets (N,)) -> ().

    The loss is the same on every rank; the gradient of `hidden` is this rank's part, to be summed over them.
    """

    mesh: DeviceMesh

    def __call__(self, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
        assert isinstance(weight, DTensor), "the head is cut over mesh['tp']"
        over = self.mesh["tp"]
        first = over.get_local_rank() * -(-weight.shape[0] // over.size())  # of this rank's rows
        own = weight.to_local()  # (V/w,D)
        rows = max(CHUNK_BYTES // (4 * max(own.shape[0], 1)), 1)
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        if torch.is_grad_enabled():
            return _Loss.apply(hidden, own, targets, z_loss, first, over.get_group(), rows, dtype)
        parts = zip(hidden.to(dtype).split(rows), targets.split(rows), strict=True)
        return torch.stack([chunk(h @ own.to(dtype).T, t, z_loss, first, over.get_group())[0] for h, t in parts]).sum()


def chunk(
    logits: Tensor, targets: Tensor, z_loss: float, first: int, group: dist.ProcessGroup
) -> tuple[Tensor, Tensor]:  # (rows,V/w), (rows,) -> (), (rows,V/w)
    """The loss of some rows, summed, and its gradient with respect to this rank's logits."""
    logits = widened(logits)
    counted = targets != IGNORE_INDEX  # (rows,)
    width = logits.shape[-1]  # 0: there are more ranks than rows for them
    own = counted & (targets >= first) & (targets < first + width)  # (rows,): whose target is among this rank's
    column = torch.where(own, targets - first, 0)[:, None]  # (rows,1)
    part = torch.logsumexp(logits, -1)  # (rows,), of this rank's logits
    largest = part.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX, group)
    target = logits.gather(-1, column)[:, 0] * own if width else torch.zeros_like(part)  # (rows,), 0 where not own
    sums = torch.stack((torch.exp(part - largest), target))  # (2,rows)
    dist.all_reduce(sums, group=group)
    lse = largest + sums[0].log()  # (rows,)
    loss = ((lse - sums[1] + z_loss * lse**2) * counted).sum()
    # d loss / d logits = p (1 + 2 z_loss lse) - 1[target]
    dlogits = torch.exp(logits - lse[:, None]) * (counted * (1.0 + 2.0 * z_loss * lse))[:, None]
    if width:
        dlogits.scatter_add_(-1, column, -own.to(dlogits.dtype)[:, None])
    return loss, dlogits


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float, first: int, group: dist.ProcessGroup,
        rows: int, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        low = weight.to(dtype)  # (V/w,D)
        losses = []
        dhidden, dweight = torch.empty_like(hidden), torch.zeros_like(weight)
        for h, t, dh in zip(hidden.to(dtype).split(rows), targets.split(rows), dhidden.split(rows), strict=True):
            loss, dlogits = chunk(h @ low.T, t, z_loss, first, group)
            dlow = dlogits.to(dtype)
            dh.copy_(dlow @ low)
            dweight += dlow.T @ h
            losses.append(loss)
        ctx.save_for_backward(dhidden, dweight)
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        dhidden, dweight = ctx.saved_tensors
        return dhidden * dloss, dweight * dloss, None, None, None, None, None, None
