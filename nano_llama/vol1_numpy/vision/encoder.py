"""The encoder, a Vision Transformer: patches attend to each other in all directions, through layers like a LLaMA's.

What differs from layer.py: LayerNorm for RMSNorm, biases, no rotation (positions are added once, in patches.py), no
mask, as many key/value heads as query heads, and an MLP of two matrices with GELU between them. Each backward is its
forward's list, read from the bottom. Tests: tests/vol1/vision/test_encoder.py.
Source: Dosovitskiy et al. 2020 (arXiv 2010.11929), eq. 1 to 4.
"""

from nano_llama.core.vision.config import VisionConfig
from nano_llama.core.vision.names import (
    FC1,
    FC2,
    K_PROJ,
    LAYER_NORM1,
    LAYER_NORM2,
    LAYER_PARTS,
    OUT_PROJ,
    PATCH_EMBEDDING,
    POSITION_EMBEDDING,
    POST_LAYERNORM,
    Q_PROJ,
    V_PROJ,
    layer_name,
)
from nano_llama.vol1_numpy.layer import Grads, Params, merge_heads, split_heads
from nano_llama.vol1_numpy.ops.affine import affine_backward, affine_forward
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.gelu import gelu_backward, gelu_forward
from nano_llama.vol1_numpy.ops.layernorm import layernorm_backward, layernorm_forward
from nano_llama.vol1_numpy.ops.registry import OpPair
from nano_llama.vol1_numpy.vision.patches import patch_embedding_backward, patch_embedding_forward


def encoder_forward(pixel_values: Array, p: Params, config: VisionConfig, attention: OpPair) -> tuple[Array, Cache]:
    """Patches, layers, the last norm.

    pixel_values: (N,3,S,S)   p: by the names of core/vision/names.py's encoder_shapes   attention: the op, any form
    -> (N, patches, D)
    """
    kernel, bias = p[f"{PATCH_EMBEDDING}.weight"], p[f"{PATCH_EMBEDDING}.bias"]
    x, embedding = patch_embedding_forward(pixel_values, kernel, bias, p[POSITION_EMBEDDING])  # (N, patches, D)
    layers = []
    for index in range(config.num_hidden_layers):
        own = {part: p[layer_name(index, part)] for part in LAYER_PARTS}
        x, layer = layer_forward(x, own, config, attention)  # (N, patches, D)
        layers.append(layer)
    y, norm = norm_forward(x, p, POST_LAYERNORM, config.layer_norm_eps)  # (N, patches, D)
    return y, (embedding, layers, norm, config, attention)


def encoder_backward(dy: Array, cache: Cache) -> tuple[Array, Grads]:
    """dy: (N, patches, D) -> dpixel_values (N,3,S,S), {name: gradient}."""
    embedding, layers, norm, config, attention = cache
    grads: Grads = {}
    dx = norm_backward(dy, norm, POST_LAYERNORM, grads)  # (N, patches, D)
    for index in reversed(range(config.num_hidden_layers)):
        own: Grads = {}
        dx = layer_backward(dx, layers[index], config, attention, own)  # (N, patches, D)
        grads |= {layer_name(index, part): grad for part, grad in own.items()}
    dpixels, dkernel, dbias, dpositions = patch_embedding_backward(dx, embedding)
    grads |= {f"{PATCH_EMBEDDING}.weight": dkernel, f"{PATCH_EMBEDDING}.bias": dbias, POSITION_EMBEDDING: dpositions}
    return dpixels, grads


def layer_forward(x: Array, p: Params, config: VisionConfig, attention: OpPair) -> tuple[Array, Cache]:
    """Attention and MLP, each on a normed copy of the stream, each added to the stream.    x: (N, patches, D)"""
    h, norm1 = norm_forward(x, p, LAYER_NORM1, config.layer_norm_eps)  # (N, patches, D)
    a, attn = attention_block_forward(h, p, config.head_dim, attention)  # (N, patches, D)
    x = x + a
    h, norm2 = norm_forward(x, p, LAYER_NORM2, config.layer_norm_eps)  # (N, patches, D)
    m, mlp = mlp_forward(h, p)  # (N, patches, D)
    return x + m, (norm1, attn, norm2, mlp)


def layer_backward(dx: Array, cache: Cache, config: VisionConfig, attention: OpPair, grads: Grads) -> Array:
    """dx: (N, patches, D), of the layer's output -> of its input. Fills `grads` by part."""
    norm1, attn, norm2, mlp = cache
    dx = dx + norm_backward(mlp_backward(dx, mlp, grads), norm2, LAYER_NORM2, grads)
    dh = attention_block_backward(dx, attn, config.head_dim, attention, grads)
    return dx + norm_backward(dh, norm1, LAYER_NORM1, grads)


def attention_block_forward(h: Array, p: Params, head_dim: int, attention: OpPair) -> tuple[Array, Cache]:
    """Project, attend to all patches of the image, project back.    h: (N, patches, D) -> (N, patches, D)"""
    q, q_proj = project_forward(h, p, Q_PROJ)  # (N, patches, D)
    k, k_proj = project_forward(h, p, K_PROJ)
    v, v_proj = project_forward(h, p, V_PROJ)
    a, attn = attention.forward(*(split_heads(x, head_dim) for x in (q, k, v)), None)  # (N,H,patches,K)
    y, out_proj = project_forward(merge_heads(a), p, OUT_PROJ)  # (N, patches, D)
    return y, (q_proj, k_proj, v_proj, attn, out_proj)


def attention_block_backward(dy: Array, cache: Cache, head_dim: int, attention: OpPair, grads: Grads) -> Array:
    """dy: (N, patches, D) -> dh (N, patches, D). Fills `grads` by part.

    The gradient of k_proj's bias is zero: it adds the same q b to all scores of a query, and softmax does not see that.
    """
    q_proj, k_proj, v_proj, attn, out_proj = cache
    da = project_backward(dy, out_proj, OUT_PROJ, grads)  # (N, patches, D)
    dq, dk, dv = attention.backward(split_heads(da, head_dim), attn)  # (N,H,patches,K)
    dh_v = project_backward(merge_heads(dv), v_proj, V_PROJ, grads)  # (N, patches, D)
    dh_k = project_backward(merge_heads(dk), k_proj, K_PROJ, grads)
    dh_q = project_backward(merge_heads(dq), q_proj, Q_PROJ, grads)
    return dh_q + dh_k + dh_v


def mlp_forward(h: Array, p: Params) -> tuple[Array, Cache]:
    """fc2(gelu(fc1(h))).    h: (N, patches, D) -> (N, patches, D)"""
    inner, fc1 = project_forward(h, p, FC1)  # (N, patches, F)
    active, gelu = gelu_forward(inner)  # (N, patches, F)
    y, fc2 = project_forward(active, p, FC2)  # (N, patches, D)
    return y, (fc1, gelu, fc2)


def mlp_backward(dy: Array, cache: Cache, grads: Grads) -> Array:
    """dy: (N, patches, D) -> dh (N, patches, D). Fills `grads` by part."""
    fc1, gelu, fc2 = cache
    dinner = gelu_backward(project_backward(dy, fc2, FC2, grads), gelu)  # (N, patches, F)
    return project_backward(dinner, fc1, FC1, grads)


# -- ops whose weight and bias have one name ----------------------------------------------------------------------


def project_forward(x: Array, p: Params, part: str) -> tuple[Array, Cache]:
    return affine_forward(x, p[f"{part}.weight"], p[f"{part}.bias"])


def project_backward(dy: Array, cache: Cache, part: str, grads: Grads) -> Array:
    dx, grads[f"{part}.weight"], grads[f"{part}.bias"] = affine_backward(dy, cache)
    return dx


def norm_forward(x: Array, p: Params, part: str, eps: float) -> tuple[Array, Cache]:
    return layernorm_forward(x, p[f"{part}.weight"], p[f"{part}.bias"], eps)


def norm_backward(dy: Array, cache: Cache, part: str, grads: Grads) -> Array:
    dx, grads[f"{part}.weight"], grads[f"{part}.bias"] = layernorm_backward(dy, cache)
    return dx
