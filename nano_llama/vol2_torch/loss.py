"""The training loss of Volume 2: cross-entropy summed over the counted targets, with z-loss where it is set.

The logits are a model's largest tensor. `head_loss` makes all of them; `chunked_head_loss` makes some rows at a time
and turns each chunk into its gradient at once, so that memory holds a single chunk. The derivation is in
vol1_numpy/ops/cross_entropy.py. Tests: tests/vol2/test_loss.py.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.precision import product_dtype

HeadLoss = Callable[[Tensor, Tensor, Tensor, float], Tensor]
LogitsGradient = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]

CHUNK_BYTES = 128 * 2**20  # float32 logits beyond this are made in chunks


def cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int = IGNORE_INDEX, z_loss: float = 0.0) -> Tensor:
    """Volume 1's cross_entropy_forward, differentiable: the mean over counted targets, and 0 where none is counted.

    logits (..., V), targets (...) of integers -> (), in nats. What a step uses is head_loss, which never divides.
    """
    V = logits.shape[-1]
    if targets.shape != logits.shape[:-1] or targets.dtype.is_floating_point:
        raise UserError(
            f"cross_entropy: targets {tuple(targets.shape)} of {targets.dtype} for logits {tuple(logits.shape)}.",
            hint="Expected integers of the logits' shape without its last axis.",
        )
    targets = targets.flatten()
    losses = _loss_sum(logits.reshape(-1, V), targets, ignore_index, z_loss)
    return losses / (targets != ignore_index).sum().clamp(min=1)


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """Sum over counted targets of  lse - logits[target] + z_loss lse^2,  lse = log sum exp(logits), in nats.

    hidden (N,D), the head's weight (V,D), targets (N,) -> () in float32, or wider.
    z-loss: Chowdhery et al. 2022 (arXiv 2204.02311), 5.
    """
    return _loss_sum(widened(F.linear(hidden, weight)), targets, IGNORE_INDEX, z_loss)


def widened(logits: Tensor) -> Tensor:
    """In float32, or float64 where they are: what losses are computed in."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _loss_sum(logits: Tensor, targets: Tensor, ignore_index: int, z_loss: float) -> Tensor:  # (N,V), (N,) -> ()
    loss = F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="sum")
    if z_loss:
        counted = targets != ignore_index  # (N,); not taken as an index, whose size the host would have to wait for
        loss = loss + z_loss * torch.where(counted, torch.logsumexp(logits, -1) ** 2, 0.0).sum()
    return loss


def gradient_in_place(logits: Tensor, targets: Tensor, z_loss: float) -> tuple[Tensor, Tensor]:
    """logits (N,V), targets (N,) -> head_loss's sum, (), and its gradient by the logits, (N,V), in their memory if it
    is wide enough:  p (1 + 2 z_loss lse) - 1[target],  and 0 where the target is ignored."""
    counted = targets != IGNORE_INDEX  # (N,)
    target = torch.where(counted, targets, 0)[:, None]  # (N,1)
    logits = widened(logits)
    lse = torch.logsumexp(logits, -1)  # (N,)
    losses = lse - logits.gather(-1, target)[:, 0] + z_loss * lse**2
    dlogits = logits.sub_(lse[:, None]).exp_().mul_((counted * (1.0 + 2.0 * z_loss * lse))[:, None])
    dlogits.scatter_add_(-1, target, -counted.to(logits.dtype)[:, None])
    return (losses * counted).sum(), dlogits


def chunked_head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0, gradient: LogitsGradient = gradient_in_place
) -> Tensor:
    """The same in chunks of CHUNK_BYTES of logits, with no more matrix products: the gradient is computed alongside.

    A frozen head (weight.requires_grad is false) gets none, and is not kept for the backward pass. gradient: of a
    chunk's logits, by the function above or a faster form of it.
    """
    rows = chunk_rows(weight)
    if not torch.is_grad_enabled():
        chunks = zip(hidden.split(rows), targets.split(rows), strict=True)
        return torch.stack([head_loss(h, weight, t, z_loss) for h, t in chunks]).sum()
    return _ChunkedLoss.apply(hidden, weight, targets, z_loss, rows, product_dtype(hidden), gradient)


def chunk_rows(weight: Tensor) -> int:
    """How many positions' logits fit in CHUNK_BYTES."""
    return max(CHUNK_BYTES // (4 * weight.shape[0]), 1)


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float, rows: int, dtype: torch.dtype,
        gradient: LogitsGradient,
    ) -> Tensor:  # fmt: skip
        loss = widened(hidden.new_zeros(()))
        low = weight.to(dtype)  # (V,D)
        dhidden = torch.empty_like(hidden)
        dweight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        for h, t, dh in zip(hidden.to(dtype).split(rows), targets.split(rows), dhidden.split(rows), strict=True):
            part, dlogits = gradient(h @ low.T, t, z_loss)  # (), (rows,V)
            loss += part
            dlow = dlogits.to(dtype)
            dh.copy_(dlow @ low)
            if dweight is not None:
                dweight += dlow.T @ h
        ctx.save_for_backward(dhidden, dweight)
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None, None]:
        dhidden, dweight = ctx.saved_tensors
        return dhidden * dloss, None if dweight is None else dweight * dloss, None, None, None, None, None


def fitting_head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
    """`chunked_head_loss` where the logits of these rows exceed CHUNK_BYTES or the head is frozen, else `head_loss`."""
    chunked = wants_chunks(len(hidden), len(weight)) or not weight.requires_grad
    return (chunked_head_loss if chunked else head_loss)(hidden, weight, targets, z_loss)


def at_counted_positions(head_loss: HeadLoss) -> HeadLoss:
    """The same loss, of whose logits only those rows are made that have a counted target.

    In fine-tuning these are few, the answers' tokens, and the logits are what takes time and memory. Where none is
    counted the loss is 0, and so are its gradients.
    """

    def counted_head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, z_loss: float = 0.0) -> Tensor:
        counted = targets != IGNORE_INDEX  # (N,)
        return head_loss(hidden[counted], weight, targets[counted], z_loss)

    return counted_head_loss


def wants_chunks(rows: int, vocab_size: int) -> bool:
    """Whether the logits of this many positions are too large to be made at once."""
    return 4 * rows * vocab_size > CHUNK_BYTES


def loss_sum(
    model: Any, tokens: Tensor, targets: Tensor, head_loss: HeadLoss = head_loss, z_loss: float = 0.0,
    documents: Tensor | None = None, positions: Tensor | None = None, images: tuple[Tensor, ...] = (),
) -> Tensor:  # fmt: skip
    """Nats summed over the counted targets, differentiable.  tokens, targets: (B,T) -> ()

    A sum and not a mean, so that batches with different counts add up to the loss over all of them. head_loss: the
    function above, or a faster or chunked form of it. documents: (B,T), attention stays within each; None: no limit.
    positions: (T,) in the sequence, of which a rank of context parallelism has only a part. model: a Llama, or with
    `images`, pixel_values (N,3,S,S) in a tuple, a VisionLanguageModel.
    """
    hidden = model.hidden_states(tokens, *images, positions=positions, documents=documents)  # (B,T,D)
    return head_loss(hidden.flatten(0, 1), model.head_weight, targets.flatten(), z_loss)
