"""What a head gives depends on its own width K only: softmax(q k / sqrt(K)) v, however many heads stand beside it."""

import numpy as np

from nano_llama.vol1_numpy.gradcheck import gradcheck
from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward
from nano_llama.vol1_numpy.ops.flash_attention import flash_attention_backward, flash_attention_forward
from nano_llama.vol1_numpy.ops.tiled_attention import tiled_attention_backward, tiled_attention_forward

FORMS = {
    "the plain form": (attention_forward, attention_backward),
    "the form that the model runs": (tiled_attention_forward, tiled_attention_backward),
    "the form without long rows": (flash_attention_forward, flash_attention_backward),
}
SHAPES = ((1, 1, 8), (4, 4, 8), (6, 2, 4))  # query heads, key heads, width of a head


def random_heads(H, G, K):
    rng = np.random.default_rng(H)
    return [rng.standard_normal((2, n, 5, K)) for n in (H, G, G)]


def one_head(q, k, v):
    weights = np.exp(q @ k.T / q.shape[1] ** 0.5)
    return weights / weights.sum(axis=1, keepdims=True) @ v


def test_every_head_is_what_it_would_be_alone():
    for H, G, K in SHAPES:
        q, k, v = random_heads(H, G, K)
        expected = [[one_head(q[b, h], k[b, h * G // H], v[b, h * G // H]) for h in range(H)] for b in range(2)]
        for name, (forward, _) in FORMS.items():
            error = abs(forward(q, k, v)[0] - expected).max()
            assert error < 1e-10, f"{name}: with {H} heads of width {K} the output is off by {error:.2g}"


def test_gradients_belong_to_the_forward():
    for H, G, K in SHAPES:
        for forward, backward in FORMS.values():
            gradcheck(forward, backward, random_heads(H, G, K), wrt=["q", "k", "v"], samples=6)
