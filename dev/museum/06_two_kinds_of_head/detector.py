"""Query head h uses key/value head h // R, as every file of weights supposes: compared with attention head by head."""

import numpy as np

from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.ops.tiled_attention import tiled_attention_backward, tiled_attention_forward

B, H, T, K = 2, 6, 9, 4


def arrays(G):
    rng = np.random.default_rng(G)
    return [rng.standard_normal((B, heads, T, K)) for heads in (H, G, G, H)]  # q, k, v, dout


def head_by_head(q, k, v):
    """Softmax attention as the papers write it, one head at a time."""
    out = np.empty_like(q)
    for h in range(H):
        g = h // (H // k.shape[1])
        scores = q[:, h] @ k[:, g].swapaxes(-1, -2) / np.sqrt(K)
        scores = np.where(causal_mask(T), scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[:, h] = weights / weights.sum(axis=-1, keepdims=True) @ v[:, g]
    return out


def test_each_query_head_uses_the_head_of_its_group():
    for G in (6, 1, 2, 3):
        q, k, v, _ = arrays(G)
        out, _ = tiled_attention_forward(q, k, v, causal_mask(T))
        assert np.allclose(out, head_by_head(q, k, v)), f"{H} query and {G} key/value heads give other outputs"


def test_the_gradients_are_those_of_that_function():
    step, rng = 1e-6, np.random.default_rng(0)
    for G in (1, 2, 3):
        q, k, v, dout = arrays(G)
        gradients = tiled_attention_backward(dout, tiled_attention_forward(q, k, v, causal_mask(T))[1])
        for name, array, gradient in zip(("q", "k", "v"), (q, k, v), gradients, strict=True):
            for _ in range(6):
                at = tuple(rng.integers(array.shape))
                array[at] += step
                above = np.sum(dout * head_by_head(q, k, v))
                array[at] -= 2 * step
                below = np.sum(dout * head_by_head(q, k, v))
                array[at] += step
                measured = (above - below) / (2 * step)
                assert np.isclose(measured, gradient[at], rtol=1e-5, atol=1e-7), (
                    f"with {G} key/value heads d{name} is {gradient[at]:.6f}, measured {measured:.6f}"
                )
