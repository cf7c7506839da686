"""A layer whose norms stand elsewhere than layer.py's, forward and backward: each backward is its forward's list, read
from the bottom, by the rules of layer.py.

    pre         x + f(norm(x))      layer.py: the stream is only added to
    post        norm(x + f(x))      the first transformer's: every sublayer norms the stream itself
    reordered   x + norm(f(x))      OLMo 2's: the stream is only added to, by what is normed

`LAYERS` has them by the name that a config's norm_placement gives. Tests: tests/vol1/test_vol1_variants.py.
Sources: Xiong et al. 2020 (arXiv 2002.04745), figure 1; OLMo et al. 2024, "2 OLMo 2 Furious" (arXiv 2501.00656),
section 2.1.
"""

from collections.abc import Callable
from typing import NamedTuple

from nano_llama.core.names import INPUT_NORM, POST_NORM
from nano_llama.vol1_numpy.layer import (
    Context,
    Grads,
    Params,
    attention_block_backward,
    attention_block_forward,
    layer_backward,
    layer_forward,
    mlp_backward,
    mlp_forward,
)
from nano_llama.vol1_numpy.ops.array import Array, Cache


def post_norm_layer_forward(x: Array, p: Params, ctx: Context, index: int = 0) -> tuple[Array, Cache]:
    """x: (B,T,D) -> (B,T,D)"""
    ops = ctx.ops
    a, attn = attention_block_forward(x, p, ctx, index)  # (B,T,D)
    x, norm1 = ops.rmsnorm.forward(x + a, p[INPUT_NORM], ctx.eps)  # (B,T,D)
    m, mlp = mlp_forward(x, p, ctx)  # (B,T,D)
    x, norm2 = ops.rmsnorm.forward(x + m, p[POST_NORM], ctx.eps)  # (B,T,D)
    return x, (attn, norm1, mlp, norm2)


def post_norm_layer_backward(dx: Array, cache: Cache, ctx: Context, grads: Grads) -> Array:
    """dx: (B,T,D), of the layer's output -> of its input. Fills `grads` by part."""
    ops = ctx.ops
    attn, norm1, mlp, norm2 = cache
    dx, grads[POST_NORM] = ops.rmsnorm.backward(dx, norm2)  # of the sum x + m, and so of both terms
    dx = dx + mlp_backward(dx, mlp, ctx, grads)
    dx, grads[INPUT_NORM] = ops.rmsnorm.backward(dx, norm1)
    return dx + attention_block_backward(dx, attn, ctx, grads)


def reordered_norm_layer_forward(x: Array, p: Params, ctx: Context, index: int = 0) -> tuple[Array, Cache]:
    """x: (B,T,D) -> (B,T,D)"""
    ops = ctx.ops
    a, attn = attention_block_forward(x, p, ctx, index)  # (B,T,D)
    a, norm1 = ops.rmsnorm.forward(a, p[INPUT_NORM], ctx.eps)  # (B,T,D)
    x = x + a
    m, mlp = mlp_forward(x, p, ctx)  # (B,T,D)
    m, norm2 = ops.rmsnorm.forward(m, p[POST_NORM], ctx.eps)  # (B,T,D)
    return x + m, (attn, norm1, mlp, norm2)


def reordered_norm_layer_backward(dx: Array, cache: Cache, ctx: Context, grads: Grads) -> Array:
    """dx: (B,T,D), of the layer's output -> of its input. Fills `grads` by part."""
    ops = ctx.ops
    attn, norm1, mlp, norm2 = cache
    dm, grads[POST_NORM] = ops.rmsnorm.backward(dx, norm2)
    dx = dx + mlp_backward(dm, mlp, ctx, grads)
    da, grads[INPUT_NORM] = ops.rmsnorm.backward(dx, norm1)
    return dx + attention_block_backward(da, attn, ctx, grads)


class LayerPair(NamedTuple):
    """As layer_forward and layer_backward."""

    forward: Callable[[Array, Params, Context, int], tuple[Array, Cache]]
    backward: Callable[[Array, Cache, Context, Grads], Array]


LAYERS = {
    "pre": LayerPair(layer_forward, layer_backward),
    "post": LayerPair(post_norm_layer_forward, post_norm_layer_backward),
    "reordered": LayerPair(reordered_norm_layer_forward, reordered_norm_layer_backward),
}
