"""A forward pass to be looked at, layer by layer: what each layer adds, whom its heads attend to, what the stream would
say if it ended there. One layer's weights are in memory at a time, beside the head's.

    replay = Replay(weights, config)                    # any {name: array}: a file's, read when asked for
    for layer in replay.layers(tokens): ...             # layer.attention, layer.mlp, layer.weights, layer.stream
    replay.logits(layer.stream)                         # the logit lens; after the last layer: the model's own logits
    replay.contributions(parts, stream, token)          # direct logit attribution: of the parts' sum, each one's share

Not here: a trace of named values (traces.py). Tests: tests/vol1/test_vol1_replay.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import EMBED, INPUT_NORM, LM_HEAD, NORM, POST_NORM, layer_name, layer_shapes
from nano_llama.core.rope import rope_tables
from nano_llama.core.variants import require_llama
from nano_llama.vol1_numpy.layer import Context, attention_block_forward, mlp_forward
from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.ops.attention import attention_weights
from nano_llama.vol1_numpy.ops.registry import PLAIN as OPS  # as derived: what is shown is what was computed


@dataclass(frozen=True)
class LayerReplay:
    """What one layer did."""

    index: int
    attention: Array  # (T,D), what attention added to the stream
    weights: Array  # (H,T,T), whom each head attends to
    mlp: Array  # (T,D), what the MLP added
    stream: Array  # (T,D), after the layer


class Replay:
    """In float32, over one model's weights by name. Raises UserError for a variant of LLaMA (core/variants.py)."""

    def __init__(self, weights: Mapping[str, Array], config: LlamaConfig):
        require_llama(config, "a replay, layer by layer,", hint="generate and serve compute it.")
        self.weights, self.config = weights, config

    def embed(self, tokens: Array) -> Array:
        """The stream before the first layer.    (T,) -> (T,D)"""
        return self._embedding[tokens]

    def layers(self, tokens: Array) -> Iterator[LayerReplay]:
        """tokens: (T,) of ids."""
        config, T = self.config, len(tokens)
        cos, sin = rope_tables(config, np.arange(T), np.dtype(np.float32))  # (T,K/2)
        ctx = Context(
            ops=OPS, head_dim=config.head_dim, eps=config.rms_norm_eps, cos=cos, sin=sin, mask=causal_mask(T)
        )  # fmt: skip
        x = self.embed(tokens)[None]  # (1,T,D)
        for index in range(config.num_hidden_layers):
            p = {part: self._read(layer_name(index, part)) for part in layer_shapes(config)}
            h, _ = OPS.rmsnorm.forward(x, p[INPUT_NORM], ctx.eps)  # (1,T,D)
            a, cache = attention_block_forward(h, p, ctx, index)  # (1,T,D)
            x = x + a
            h, _ = OPS.rmsnorm.forward(x, p[POST_NORM], ctx.eps)  # (1,T,D)
            m, _ = mlp_forward(h, p, ctx)  # (1,T,D)
            x = x + m
            yield LayerReplay(index, a[0], attention_weights(cache[5])[0], m[0], x[0])

    def logits(self, stream: Array) -> Array:
        """The last norm and the head, wherever the stream is taken from.    (...,D) -> (...,V)"""
        h, _ = OPS.rmsnorm.forward(stream, self._norm, self.config.rms_norm_eps)
        return OPS.linear.forward(h, self._head)[0]

    def contributions(self, parts: Array, stream: Array, token: int) -> Array:
        """What each part of the stream adds to the logit of `token`.    parts: (C,D) of sum stream (D,) -> (C,)

        The logit is head[token] · (norm * stream / rms(stream)): with the scale 1 / rms of the whole stream held fixed
        it is linear in the stream, so the parts' shares add up to it. In float64.
        """
        x = stream.astype(np.float64)
        scale = 1 / np.sqrt((x * x).mean() + self.config.rms_norm_eps)
        direction = self._head[token].astype(np.float64) * self._norm * scale  # (D,)
        return parts.astype(np.float64) @ direction

    def _read(self, name: str) -> Array:
        return np.asarray(self.weights[name], np.float32)

    @cached_property
    def _embedding(self) -> Array:  # (V,D)
        return self._read(EMBED)

    @cached_property
    def _norm(self) -> Array:  # (D,)
        return self._read(NORM)

    @cached_property
    def _head(self) -> Array:  # (V,D)
        return self._embedding if self.config.tie_word_embeddings else self._read(LM_HEAD)
