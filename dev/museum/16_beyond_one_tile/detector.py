"""Tile by tile or at once: the same outputs and gradients, above all where a row's maximum comes late."""

import numpy as np

from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward
from nano_llama.vol1_numpy.ops.flash_attention import flash_attention_backward, flash_attention_forward


def arrays(T, growth):
    rng = np.random.default_rng(T)
    q, k, v, dout = (rng.standard_normal((1, heads, T, 8)) for heads in (4, 2, 2, 4))
    return q, k * np.linspace(1, growth, T)[:, None], v, dout


def test_tiles_change_nothing():
    for T in (5, 16, 17, 40):
        for growth in (1.0, 6.0, 0.2):  # scores that grow along the text, or shrink
            for mask in (None, causal_mask(T)):
                q, k, v, dout = arrays(T, growth)
                plain, plain_cache = attention_forward(q, k, v, mask)
                tiled, tiled_cache = flash_attention_forward(q, k, v, mask, 16)
                case = f"{T} tokens in tiles of 16, scores growing {growth} times"
                assert np.allclose(plain, tiled), f"{case}: outputs differ by {abs(plain - tiled).max():.2g}"
                pairs = zip(
                    attention_backward(dout, plain_cache), flash_attention_backward(dout, tiled_cache), strict=True
                )
                assert all(np.allclose(one, other) for one, other in pairs), f"{case}: gradients differ"
