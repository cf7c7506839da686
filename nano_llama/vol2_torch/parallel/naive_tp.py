"""Tensor parallel with nothing hidden: weights cut by hand, and two functions, each the other's backward pass.

`split` copies a stream to the ranks' slices: nothing to do, but its gradients come from all of them and are summed.
`join` sums what the slices computed; its gradient goes to each as it is. (Megatron's f and g: Shoeybi et al. 2019,
arXiv 1909.08053.) Sizes are divided by the number of ranks here, and the loss gathers all logits; tp.py does neither.
Tests: tests/parallel/test_naive.py.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.vol2_torch.model import Llama


class Communication(torch.autograd.Function):
    """split: x, then the sum of the ranks' gradients. join: the sum of the ranks' x, then the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, joins: bool, group: dist.ProcessGroup) -> Tensor:
        ctx.joins, ctx.group = joins, group
        return summed(x, group) if joins else x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient if ctx.joins else summed(gradient, ctx.group), None, None


def summed(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    total = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


def split(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return Communication.apply(x, False, group)


def join(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return Communication.apply(x, True, group)


class Collect(torch.autograd.Function):
    """(N,V/w) on each rank -> (N,V). Every rank then computes the same loss, so that each has its part's gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        parts = [torch.empty_like(part) for _ in range(group.size())]
        dist.all_gather(parts, part, group=group)
        return torch.cat(parts, -1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.chunk(ctx.group.size(), -1)[ctx.group.rank()], None


def cut(model: Llama, group: dist.ProcessGroup) -> None:
    """Keep this rank's slice of every matrix, in place, and communicate around attention, MLP and embedding."""
    embedding = model.model.embed_tokens
    keep(embedding, 0, group)  # (V/w,D)
    embedding.forward = lambda tokens: look_up(embedding.weight, tokens, group)  # type: ignore[assignment, method-assign]
    if model.lm_head is not None:
        keep(model.lm_head, 0, group)  # (V/w,D)
    layer: Any
    for layer in model.model.layers:
        for sublayer, inner, outer in ((layer.self_attn, "q k v", "o"), (layer.mlp, "gate up", "down")):
            for name in inner.split():
                keep(getattr(sublayer, f"{name}_proj"), 0, group)  # (out/w,D): whole heads, hidden units
            last = getattr(sublayer, f"{outer}_proj")
            keep(last, 1, group)  # (D,in/w)
            sublayer.register_forward_pre_hook(lambda _, inputs: (split(inputs[0], group), *inputs[1:]))
            last.register_forward_hook(lambda _, inputs, part: join(part, group))


def keep(module: Any, dim: int, group: dist.ProcessGroup) -> None:
    assert module.weight.shape[dim] % group.size() == 0, "the ranks do not divide it: tp.py"
    module.weight = nn.Parameter(module.weight.detach().chunk(group.size(), dim)[group.rank()].clone())


def look_up(rows: Tensor, tokens: Tensor, group: dist.ProcessGroup) -> Tensor:
    """rows (V/w,D): this rank's. tokens (B,T) -> (B,T,D): each token is one rank's, the others add zeros."""
    own = tokens // len(rows) == group.rank()
    return join(F.embedding((tokens % len(rows)).where(own, 0), rows) * own[..., None], group)


def loss_sum(model: Llama, tokens: Tensor, targets: Tensor, group: dist.ProcessGroup) -> Tensor:
    """(B,T), (B,T), the same on every rank -> (), nats."""
    hidden = split(model.hidden_states(tokens).flatten(0, 1), group)  # (N,D)
    logits = Collect.apply(F.linear(hidden, model.head_weight), group)  # (N,V/w) -> (N,V)
    return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
