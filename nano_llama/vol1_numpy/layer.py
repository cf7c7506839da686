"""One layer of a LLaMA, forward and backward: each backward is its forward's list, read from the bottom.

The ops' own derivations are in ops/. Tests: tests/vol1/test_vol1_model_gradients.py.

The rules that join the ops' gradients are three. What is used twice receives the sum of both gradients (h feeds q, k
and v; the stream x feeds a sublayer and the sum after it). A sum passes its gradient on to both terms unchanged. A
reshape or transpose is undone.
Source: Touvron et al. 2023, "LLaMA" (arXiv 2302.13971), section 2.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from nano_llama.core.names import (
    DOWN_PROJ,
    GATE_PROJ,
    INPUT_NORM,
    K_PROJ,
    O_PROJ,
    POST_NORM,
    Q_PROJ,
    UP_PROJ,
    V_PROJ,
)
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.registry import Ops

Params = Mapping[str, Array]  # a layer's parameters by part: "self_attn.q_proj.weight", ...
Grads = dict[str, Array]


class LayerPast(Protocol):
    """What a layer asks of a KV cache."""

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Append k, v (B,G,T,K) of the new tokens; return those of all tokens, (B,G,S,K) each."""
        ...


class Past(LayerPast, Protocol):
    """Keys and values of the tokens before, for generation: a KV cache."""

    @property
    def length(self) -> int: ...


@dataclass(frozen=True, kw_only=True)
class Context:
    """What every layer of one pass shares."""

    ops: Ops
    head_dim: int  # K
    eps: float  # of the norms
    cos: Array  # (T,K/2)
    sin: Array  # (T,K/2)
    mask: Array | None  # boolean, broadcastable to (B,1,T,S), True may attend
    past: LayerPast | None = None


def layer_forward(x: Array, p: Params, ctx: Context, index: int = 0) -> tuple[Array, Cache]:
    """Attention and MLP, each on a normed copy of the stream, each added to the stream.    x: (B,T,D) -> (B,T,D)"""
    ops = ctx.ops
    h, norm1 = ops.rmsnorm.forward(x, p[INPUT_NORM], ctx.eps)  # (B,T,D)
    a, attn = attention_block_forward(h, p, ctx, index)  # (B,T,D)
    x = x + a
    h, norm2 = ops.rmsnorm.forward(x, p[POST_NORM], ctx.eps)  # (B,T,D)
    m, mlp = mlp_forward(h, p, ctx)  # (B,T,D)
    return x + m, (norm1, attn, norm2, mlp)


def layer_backward(dx: Array, cache: Cache, ctx: Context, grads: Grads) -> Array:
    """dx: (B,T,D), of the layer's output -> of its input. Fills `grads` by part."""
    ops = ctx.ops
    norm1, attn, norm2, mlp = cache
    dh = mlp_backward(dx, mlp, ctx, grads)
    through, grads[POST_NORM] = ops.rmsnorm.backward(dh, norm2)
    dx = dx + through
    dh = attention_block_backward(dx, attn, ctx, grads)
    through, grads[INPUT_NORM] = ops.rmsnorm.backward(dh, norm1)
    return dx + through


def attention_block_forward(h: Array, p: Params, ctx: Context, index: int = 0) -> tuple[Array, Cache]:
    """Project, rotate, attend, project back.    h: (B,T,D) -> (B,T,D)"""
    ops = ctx.ops
    q, q_proj = ops.linear.forward(h, p[Q_PROJ])  # (B,T,H*K)
    k, k_proj = ops.linear.forward(h, p[K_PROJ])  # (B,T,G*K)
    v, v_proj = ops.linear.forward(h, p[V_PROJ])  # (B,T,G*K)
    q, q_rope = ops.rope.forward(split_heads(q, ctx.head_dim), ctx.cos, ctx.sin)  # (B,H,T,K)
    k, k_rope = ops.rope.forward(split_heads(k, ctx.head_dim), ctx.cos, ctx.sin)  # (B,G,T,K)
    v = split_heads(v, ctx.head_dim)  # (B,G,T,K)
    if ctx.past is not None:
        k, v = ctx.past.append(index, k, v)  # (B,G,S,K)
    a, attention = ops.attention.forward(q, k, v, ctx.mask)  # (B,H,T,K)
    y, o_proj = ops.linear.forward(merge_heads(a), p[O_PROJ])  # (B,T,D)
    return y, (q_proj, k_proj, v_proj, q_rope, k_rope, attention, o_proj)


def attention_block_backward(dy: Array, cache: Cache, ctx: Context, grads: Grads) -> Array:
    """dy: (B,T,D) -> dh (B,T,D). Fills `grads` by part."""
    ops = ctx.ops
    q_proj, k_proj, v_proj, q_rope, k_rope, attention, o_proj = cache
    da, grads[O_PROJ] = ops.linear.backward(dy, o_proj)  # (B,T,H*K)
    dq, dk, dv = ops.attention.backward(split_heads(da, ctx.head_dim), attention)  # (B,H|G,T,K)
    dk = ops.rope.backward(dk, k_rope)
    dq = ops.rope.backward(dq, q_rope)
    dh_v, grads[V_PROJ] = ops.linear.backward(merge_heads(dv), v_proj)  # (B,T,D)
    dh_k, grads[K_PROJ] = ops.linear.backward(merge_heads(dk), k_proj)
    dh_q, grads[Q_PROJ] = ops.linear.backward(merge_heads(dq), q_proj)
    return dh_q + dh_k + dh_v


def mlp_forward(h: Array, p: Params, ctx: Context) -> tuple[Array, Cache]:
    """down(silu(gate(h)) * up(h)).    h: (B,T,D) -> (B,T,D)"""
    ops = ctx.ops
    gate, gate_proj = ops.linear.forward(h, p[GATE_PROJ])  # (B,T,F)
    up, up_proj = ops.linear.forward(h, p[UP_PROJ])  # (B,T,F)
    inner, swiglu = ops.swiglu.forward(gate, up)  # (B,T,F)
    y, down_proj = ops.linear.forward(inner, p[DOWN_PROJ])  # (B,T,D)
    return y, (gate_proj, up_proj, swiglu, down_proj)


def mlp_backward(dy: Array, cache: Cache, ctx: Context, grads: Grads) -> Array:
    """dy: (B,T,D) -> dh (B,T,D). Fills `grads` by part."""
    ops = ctx.ops
    gate_proj, up_proj, swiglu, down_proj = cache
    dinner, grads[DOWN_PROJ] = ops.linear.backward(dy, down_proj)  # (B,T,F)
    dgate, dup = ops.swiglu.backward(dinner, swiglu)  # (B,T,F)
    dh_up, grads[UP_PROJ] = ops.linear.backward(dup, up_proj)  # (B,T,D)
    dh_gate, grads[GATE_PROJ] = ops.linear.backward(dgate, gate_proj)
    return dh_gate + dh_up


def split_heads(x: Array, head_dim: int) -> Array:
    """(B,T,n*K) -> (B,n,T,K), a view"""
    B, T, width = x.shape
    return x.reshape(B, T, width // head_dim, head_dim).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """(B,n,T,K) -> (B,T,n*K), the reverse of split_heads"""
    B, n, T, K = x.shape
    return x.transpose(0, 2, 1, 3).reshape(B, T, n * K)
