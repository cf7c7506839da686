"""Context parallelism: one sequence over many ranks, each with the queries, keys and values of its own positions.

Everything in the model but attention works on each position alone. Attention needs other ranks' keys and values; how
they come is a choice, and `Attention.attend` is replaced by it, so that model.py knows of no ranks:

    ring      keys and values go round; each rank attends to what has arrived, and merges.  Liu et al. 2023 (2310.01889)
    gather    every rank gathers all keys and values: less waiting, more memory.  Llama 3, 2024 (2407.21783), 3.3.2
    ulysses   an all-to-all gives each rank all positions of some heads.  Jacobs et al. 2023 (2309.14509)

How the positions are divided, and why: sequence_split.py. The ring's parts: attention_blocks.py. Its naive
form, with nothing but send and recv: naive_cp.py. Parameters are whole on every rank, and the sum of the ranks'
gradients is the gradient, as in data parallelism. Tests: tests/parallel/test_cp.py.

Shapes: B batch, H query heads, G key/value heads, N positions of this rank (two chunks), w ranks, T = w N, K head dim.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import ProcessGroup

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.attention_blocks import attend_block, attend_block_backward, merge
from nano_llama.vol2_torch.parallel.sequence_split import in_order, in_parts, padded_length, visible
from nano_llama.vol2_torch.parallel.stage import Stage

EXCHANGES = ("ring", "gather", "ulysses")


def context_parallel(model: Llama | Stage, group: ProcessGroup, exchange: str = "ring", *, tp: int = 1) -> None:
    """From now on the model's attention is over the whole sequence, of which each rank of `group` has its part.

    Its tokens and positions come from `split_batch`. tp: ranks that share the heads. Raises UserError for what this
    exchange cannot do.
    """
    check_context_parallel(model.config, group.size(), exchange, tp=tp)
    for layer in model.model.layers:
        vars(layer.self_attn)["attend"] = ContextParallelAttention(group, exchange)  # goes before the class's method


@contextmanager
def whole_sequences(model: Llama | Stage) -> Iterator[None]:
    """Inside, each rank attends within what it is given, as one process does: for generation."""
    attentions = [layer.self_attn for layer in model.model.layers]
    replaced = [vars(attention).pop("attend") for attention in attentions]
    try:
        yield
    finally:
        for attention, attend in zip(attentions, replaced, strict=True):
            vars(attention)["attend"] = attend


def check_context_parallel(
    config: LlamaConfig, size: int, exchange: str, context: int | None = None, *, tp: int = 1
) -> None:
    """Raise UserError where `size` ranks cannot share a sequence of `context` tokens (None: of any) in this way."""
    if exchange not in EXCHANGES:
        raise UserError(f"Unknown exchange {exchange!r} for cp.", hint=f"One of {', '.join(EXCHANGES)}.")
    if exchange == "ulysses" and config.num_attention_heads % (size * tp):
        raise UserError(
            f"cp={size} by ulysses: {config.num_attention_heads} query heads are not divided by {size * tp} ranks.",
            hint="The exchange 'ring' divides positions only.",
        )
    longest = config.max_position_embeddings
    if config.rope_kind == "dynamic" and padded_length(context or longest, size) > longest:
        raise UserError(
            f"cp={size}: the angles of RoPE kind 'dynamic' depend on the length of a text, which no rank sees.",
            hint=f"They do not up to {longest} tokens: choose such a context, which {2 * size} divides.",
        )


def packed_over_cp() -> UserError:
    """What is said where documents, or another mask, meet cp."""
    return UserError(
        "Packed documents over cp: the mask that keeps attention within a document is not divided over ranks.",
        hint="Train without cp, or on windows without document masks.",
    )


class ContextParallelAttention:
    """Stands in the place of `Attention.attend`: the queries, keys and values of this rank's positions -> its outputs.

    No module: it has no parameters, and the model's names stay as they are.
    """

    def __init__(self, group: ProcessGroup, exchange: str):
        self.group = group
        self.attend = {"ring": ring_attention, "gather": gather_attention, "ulysses": ulysses_attention}[exchange]

    @torch.compiler.disable  # a compiled layer leaves off here, and goes on after it
    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        if mask is not None:
            raise packed_over_cp()
        assert causal, "a single position is not shared by ranks"
        return self.attend(q, k, v, self.group)


# -- ring ----------------------------------------------------------------------------------------------------------


def ring_attention(q: Tensor, k: Tensor, v: Tensor, group: ProcessGroup) -> Tensor:
    """q (B,H,N,K), k and v (B,G,N,K) of this rank -> (B,H,N,K)"""
    return _Ring.apply(q, k, v, group)


class _Ring(torch.autograd.Function):
    """w - 1 hops: keys and values travel while the block that is already here is computed."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, group: ProcessGroup) -> Tensor:
        rank, size, n = group.rank(), group.size(), q.shape[2] // 2
        traffic = Hop(torch.stack((k, v)), group)  # (2,B,G,N,K)
        out, lse = attend_block(q, k, v, causal=True)  # (B,H,N,K), (B,H,N)
        out, lse = out.to(lse.dtype, copy=True), lse.clone()  # selective checkpointing keeps what the kernel returned
        for hop in range(1, size):
            keys, values = kv = traffic.arrived()  # of rank - hop
            if hop < size - 1:
                traffic = Hop(kv, group)
            rows, columns = visible(rank, (rank - hop) % size, n)
            block = attend_block(q[:, :, rows], keys[:, :, columns], values[:, :, columns], causal=False)
            out[:, :, rows], lse[:, :, rows] = merge(out[:, :, rows], lse[:, :, rows], *block)
        out = out.to(q.dtype)
        ctx.group = group
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, dout: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """Keys and values go round once more. A block's gradient follows it, one hop behind, and grows at every rank;
        its last hop is home, where what the rank itself contributes is added."""
        q, k, v, out, lse = ctx.saved_tensors
        group, n = ctx.group, q.shape[2] // 2
        rank, size = group.rank(), group.size()
        traffic = Hop(torch.stack((k, v)), group)
        dq, *own = (x.to(lse.dtype) for x in attend_block_backward(dout, q, k, v, out, lse, causal=True))
        behind: Hop | None = None
        for hop in range(1, size):
            keys, values = kv = traffic.arrived()
            if hop < size - 1:
                traffic = Hop(kv, group)
            rows, columns = visible(rank, (rank - hop) % size, n)
            dq_here, *dkv_here = attend_block_backward(
                dout[:, :, rows], q[:, :, rows], keys[:, :, columns], values[:, :, columns],
                out[:, :, rows], lse[:, :, rows], causal=False,
            )  # fmt: skip
            dq[:, :, rows] += dq_here
            dkv = torch.zeros_like(kv, dtype=lse.dtype) if behind is None else behind.arrived()  # (2,B,G,N,K)
            dkv[:, :, :, columns] += torch.stack(dkv_here)
            behind = Hop(dkv, group)
        dkv = torch.stack(own) if behind is None else behind.arrived() + torch.stack(own)
        dk, dv = dkv.to(k.dtype)
        return dq.to(q.dtype), dk, dv, None


class Hop:
    """A tensor on its way to the next rank of the ring, while one of the same shape comes from the rank before."""

    def __init__(self, tensor: Tensor, group: ProcessGroup):
        self.received = torch.empty_like(tensor)
        if group.size() == 1:
            self.works = []
            return
        after, before = ((group.rank() + step) % group.size() for step in (1, -1))
        self.works = dist.batch_isend_irecv(
            [
                dist.P2POp(dist.isend, tensor, dist.get_global_rank(group, after), group),
                dist.P2POp(dist.irecv, self.received, dist.get_global_rank(group, before), group),
            ]
        )

    def arrived(self) -> Tensor:
        """What came from the rank before, once it is here."""
        for work in self.works:
            work.wait()
        return self.received


# -- gather --------------------------------------------------------------------------------------------------------


def gather_attention(q: Tensor, k: Tensor, v: Tensor, group: ProcessGroup) -> Tensor:
    """q (B,H,N,K), k and v (B,G,N,K) of this rank -> (B,H,N,K).  Each of its two chunks sees the keys up to its end."""
    size, n = group.size(), q.shape[2] // 2
    parts = _Gather.apply(torch.stack((k, v)), group)  # (w,2,B,G,N,K)
    keys, values = in_order(parts.movedim(0, -3).flatten(-3, -2), -2, size)  # (B,G,T,K) each
    outs = []
    for chunk, queries in zip((group.rank(), 2 * size - 1 - group.rank()), q.split(n, dim=2), strict=True):
        seen = (chunk + 1) * n
        mask = torch.ones(n, seen, dtype=torch.bool, device=q.device).tril(chunk * n)
        k_seen, v_seen = keys[:, :, :seen], values[:, :, :seen]
        outs.append(F.scaled_dot_product_attention(queries, k_seen, v_seen, attn_mask=mask, enable_gqa=True))
    return torch.cat(outs, dim=2)


class _Gather(torch.autograd.Function):
    """Every rank's tensor on every rank, (...) -> (w,...); its backward pass sums each part where it came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        gathered = x.new_empty((group.size(), *x.shape))
        dist.all_gather(list(gathered), x.contiguous(), group=group)
        return gathered

    @staticmethod
    def backward(ctx: Any, dgathered: Tensor) -> tuple[Tensor, None]:
        dx = dgathered.new_empty(dgathered.shape[1:])
        dist.reduce_scatter(dx, list(dgathered.contiguous()), group=ctx.group)
        return dx, None


# -- ulysses -------------------------------------------------------------------------------------------------------


def ulysses_attention(q: Tensor, k: Tensor, v: Tensor, group: ProcessGroup) -> Tensor:
    """q (B,H,N,K), k and v (B,G,N,K) of this rank -> (B,H,N,K).  Between two all-to-alls it has H/w heads, whole.

    Where w does not divide G, each key/value head is sent to every rank that has a query head of it.
    """
    size = group.size()
    copies = math.lcm(k.shape[1], size) // k.shape[1]
    k, v = (x.repeat_interleave(copies, dim=1) for x in (k, v))
    q, k, v = (in_order(_swap(x, 1, 2, group), 2, size) for x in (q, k, v))  # (B,H/w,T,K), and G's heads alike
    out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)  # (B,H/w,T,K)
    return _swap(in_parts(out, 2, size), 2, 1, group)


def _swap(x: Tensor, divided: int, joined: int, group: ProcessGroup) -> Tensor:
    """Dimension `divided` goes in w parts to the ranks, whose parts come together in dimension `joined`."""
    parts = x.unflatten(divided, (group.size(), -1)).movedim(divided, 0)  # (w,...)
    return _AllToAll.apply(parts, group).movedim(0, joined).flatten(joined, joined + 1)


class _AllToAll(torch.autograd.Function):
    """x[i] goes to rank i, and what rank i sends stands in its place.  The way back is the same exchange."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        ctx.group = group
        x = x.contiguous()  # before empty_like, which would copy the strides
        received = torch.empty_like(x)
        dist.all_to_all_single(received, x, group=group)
        return received

    @staticmethod
    def backward(ctx: Any, dreceived: Tensor) -> tuple[Tensor, None]:
        return _AllToAll.apply(dreceived, ctx.group), None
