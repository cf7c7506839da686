"""Attention in groups of 1 to 4 query heads has the gradients that differences measure, in both forms."""

import numpy as np

from nano_llama.vol1_numpy.gradcheck import gradcheck
from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward
from nano_llama.vol1_numpy.ops.tiled_attention import tiled_attention_backward, tiled_attention_forward


def test_gradients():
    rng = np.random.default_rng(0)
    pairs = ((attention_forward, attention_backward), (tiled_attention_forward, tiled_attention_backward))
    for G in (4, 2, 1):
        inputs = {name: rng.standard_normal((1, heads, 4, 3)) for name, heads in (("q", 4), ("k", G), ("v", G))}
        for forward, backward in pairs:
            gradcheck(lambda q, k, v, forward=forward: forward(q, k, v, causal_mask(4)), backward, inputs)
