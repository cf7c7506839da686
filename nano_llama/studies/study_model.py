"""A LLaMA with parts replaced or removed, so that a study can show what they do. With StudyConfig() it is a LLaMA.

It builds on vol1_numpy/layer.py and vol1_numpy/model.py. It cannot be saved: no config.json could describe it.
Tests: tests/studies/test_study_model.py.
Pre-LN and Post-LN: Xiong et al. 2020, "On Layer Normalization in the Transformer Architecture" (arXiv 2002.04745).
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.names import INPUT_NORM, NORM, POST_NORM, layer_name
from nano_llama.core.variants import require_llama
from nano_llama.studies.study_config import StudyConfig
from nano_llama.vol1_numpy.layer import (
    Context,
    Grads,
    Params,
    attention_block_backward,
    attention_block_forward,
    mlp_backward,
    mlp_forward,
)
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.layernorm import layernorm_backward, layernorm_forward
from nano_llama.vol1_numpy.ops.registry import OpPair

BLOCKS = ((INPUT_NORM, attention_block_forward, attention_block_backward), (POST_NORM, mlp_forward, mlp_backward))


class StudyLlama(Llama):
    """StudyLlama.init(config, seed, study=StudyConfig(norm_position="post")); then as a Llama."""

    def __init__(self, config: LlamaConfig, params: dict[str, Array], *, study: StudyConfig | None = None, **options):
        """params: a LLaMA's. LayerNorm biases are added as zeros, and the gains of missing norms are removed."""
        require_llama(config, "a study's model", ("norm_placement",), hint="Its norms are moved by StudyConfig.")
        super().__init__(config, dict(params), **options)
        self.study = study or StudyConfig()
        for name in [name for name in self.params if name.endswith("norm.weight")]:
            if self.study.norm == "none" or (name == NORM and self.study.norm_position == "post"):
                del self.params[name]  # the last Post-LN layer has normalized everything already
            elif self.study.norm == "layernorm":
                self.params.setdefault(bias_of(name), np.zeros_like(self.params[name]))
        if not self.study.attention_scale:
            self.ops = replace(self.ops, attention=unscaled(self.ops.attention))

    def layer_forward(self, x: Array, index: int, ctx: Context) -> tuple[Array, Cache]:
        p, caches = self.layer_params(index), []
        for norm_name, forward, _ in BLOCKS:
            x, cache = self._sublayer_forward(x, norm_name, forward, p, index, ctx)
            caches.append(cache)
        return x, tuple(caches)

    def layer_backward(self, dx: Array, cache: Cache, index: int, ctx: Context) -> tuple[Array, dict[str, Array]]:
        grads: Grads = {}
        for (norm_name, _, backward), sub_cache in zip(reversed(BLOCKS), reversed(cache), strict=True):
            dx = self._sublayer_backward(dx, sub_cache, norm_name, backward, ctx, grads)
        return dx, {layer_name(index, part): grad for part, grad in grads.items()}

    def _sublayer_forward(
        self, x: Array, norm_name: str, forward: Callable[..., Any], p: Params, index: int, ctx: Context
    ) -> tuple[Array, Cache]:
        """x + f(norm(x)), or norm(x + f(x)); without residual f(norm(x)), or norm(f(x))."""
        if forward is attention_block_forward:
            forward = partial(forward, index=index)
        pre = self.study.norm_position == "pre"
        h, before = self._norm_forward(x, p, norm_name, ctx) if pre else (x, None)
        y, block = forward(h, p, ctx)
        y = x + y if self.study.residual else y
        y, after = (y, None) if pre else self._norm_forward(y, p, norm_name, ctx)
        return y, (before, block, after)

    def _sublayer_backward(
        self, dy: Array, cache: Cache, norm_name: str, backward: Callable[..., Any], ctx: Context, grads: Grads
    ) -> Array:
        """The same list in reverse; the residual hands its gradient to both sides."""
        before, block, after = cache
        dy = self._norm_backward(dy, after, norm_name, ctx, grads)
        dh = backward(dy, block, ctx, grads)
        dx = self._norm_backward(dh, before, norm_name, ctx, grads)
        return dx + dy if self.study.residual else dx

    def _norm_forward(self, x: Array, p: Params, name: str, ctx: Context) -> tuple[Array, Cache | None]:
        if name not in p:
            return x, None
        if self.study.norm == "layernorm":
            return layernorm_forward(x, p[name], p[bias_of(name)], ctx.eps)
        return ctx.ops.rmsnorm.forward(x, p[name], ctx.eps)

    def _norm_backward(self, dy: Array, cache: Cache | None, name: str, ctx: Context, grads: Grads) -> Array:
        if cache is None:  # there is no norm here
            return dy
        if self.study.norm == "layernorm":
            dx, grads[name], grads[bias_of(name)] = layernorm_backward(dy, cache)
        else:
            dx, grads[name] = ctx.ops.rmsnorm.backward(dy, cache)
        return dx

    def norm_forward(self, x: Array, ctx: Context) -> tuple[Array, Cache]:
        h, cache = self._norm_forward(x, self.params, NORM, ctx)
        return h, (cache,)

    def norm_backward(self, dh: Array, cache: Cache, ctx: Context) -> tuple[Array, dict[str, Array]]:
        grads: Grads = {}
        return self._norm_backward(dh, cache[0], NORM, ctx, grads), grads

    def layer_params(self, index: int) -> Params:
        prefix = layer_name(index, "")
        return {name.removeprefix(prefix): array for name, array in self.params.items() if name.startswith(prefix)}

    def save(self, path: Any, *args: Any, **options: Any) -> None:
        raise UserError(f"A study's model is not a LLaMA, and no file format for one could describe it ({path}).")


def bias_of(norm_name: str) -> str:
    return norm_name.removesuffix("weight") + "bias"


def unscaled(attention: OpPair) -> OpPair:
    """Attention without 1/sqrt(K): multiplying q by sqrt(K) beforehand cancels it, and its gradient after."""

    def forward(q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, Cache]:
        root = math.sqrt(q.shape[-1])
        out, cache = attention.forward(q * root, k, v, mask)
        return out, (cache, root)

    def backward(dout: Array, cache: Cache) -> tuple[Array, Array, Array]:
        dq, dk, dv = attention.backward(dout, cache[0])
        return dq * cache[1], dk, dv

    return OpPair(forward, backward)
