"""Kernels in their places in a model: methods of its layers are replaced, so that model.py knows of none.

    Attention.attend       flash attention             Attention.rotate      RoPE
    Block.sublayers        RMSNorm, with additions     MLP.gated             SwiGLU

Parameters and their names stay as they are; so does the last norm, one of 2 L + 1.
Tests: tests/vol2/kernels/test_in_model.py.
"""

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor

from nano_llama.vol2_torch.cache import LayerCache
from nano_llama.vol2_torch.kernels.flash_attention import flash_attention
from nano_llama.vol2_torch.kernels.rmsnorm import add_rmsnorm, rmsnorm
from nano_llama.vol2_torch.kernels.rope import rope
from nano_llama.vol2_torch.kernels.swiglu import swiglu
from nano_llama.vol2_torch.model import Block, Llama
from nano_llama.vol2_torch.packing import by_number
from nano_llama.vol2_torch.precision import product_dtype


def use_kernels(model: Llama, names: Collection[str], dtype: torch.dtype) -> None:
    """names: of self_check.py's kernels, those that this model is to compute with. dtype: of the run's products."""
    for layer in model.model.layers:
        assert isinstance(layer, Block)
        if "flash_attention" in names:
            vars(layer.self_attn)["attend"] = FlashAttend(dtype)  # goes before the class's method
        if "rope" in names:
            vars(layer.self_attn)["rotate"] = rope
        if "swiglu" in names:
            vars(layer.mlp)["gated"] = swiglu
        if "rmsnorm" in names:
            vars(layer)["sublayers"] = FusedNorms(layer)
    if "flash_attention" in names:
        model.within_documents = by_number


class FlashAttend:
    """Stands in the place of `Attention.attend`. The kernel takes causal windows, whole or with documents (B,T) in the
    mask's place, in the format that it was checked in; all else, such as a query against a cache, is PyTorch's."""

    def __init__(self, dtype: torch.dtype):
        self.dtype = dtype

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        dtype = product_dtype(q)  # autocast rounds PyTorch's own operators' inputs, not ours
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
        documents = mask if mask is not None and mask.dtype != torch.bool else None
        if dtype == self.dtype and (causal or documents is not None):
            return flash_attention(q, k, v, causal=True, documents=documents)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=True)


class FusedNorms:
    """Stands in the place of `Block.sublayers`: the addition to the stream and the norm that follows it are one pass.

    Norms are written in the format of the products that read them.
    """

    def __init__(self, layer: Block):
        self.layer = layer

    def __call__(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: LayerCache | None) -> Tensor:
        layer, dtype = self.layer, product_dtype(x)
        before, between = layer.input_layernorm, layer.post_attention_layernorm
        normed = rmsnorm(x, before.weight, before.eps, dtype)  # (B,T,D)
        branch = layer.drop(layer.self_attn(normed, cos, sin, mask, cache))
        x, normed = add_rmsnorm(branch, x, between.weight, between.eps, dtype)
        return x + layer.drop(layer.mlp(normed))
