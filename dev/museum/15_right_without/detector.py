"""Attention tile by tile has the gradients of the plain form, whatever the mask."""

import numpy as np

from nano_llama.vol1_numpy.masks import causal_mask, padding_mask
from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward
from nano_llama.vol1_numpy.ops.flash_attention import flash_attention_backward, flash_attention_forward

T = 20
PRESENT = np.arange(T) >= np.array([[0], [7]])  # the second sequence is padded on the left
MASKS = {
    "without a mask": None,
    "with a causal mask": causal_mask(T),
    "with padding": padding_mask(PRESENT),
    "with a causal mask and padding": causal_mask(T) & padding_mask(PRESENT),
}


def inputs():
    rng = np.random.default_rng(0)
    return [rng.standard_normal((2, n, T, 8)) for n in (4, 2, 2, 4)]  # q, k, v, dout


def test_outputs():
    q, k, v, _ = inputs()
    for name, mask in MASKS.items():
        for block in (8, 64):
            out, expected = flash_attention_forward(q, k, v, mask, block)[0], attention_forward(q, k, v, mask)[0]
            assert np.allclose(out, expected), f"{name}, tiles of {block}: the output differs"


def test_gradients():
    q, k, v, dout = inputs()
    for name, mask in MASKS.items():
        expected = attention_backward(dout, attention_forward(q, k, v, mask)[1])
        for block in (8, 64):
            grads = flash_attention_backward(dout, flash_attention_forward(q, k, v, mask, block)[1])
            for letter, got, right in zip("qkv", grads, expected, strict=True):
                error = abs(got - right).max()
                assert error < 1e-10, f"{name}, tiles of {block}: the gradient of {letter} is off by {error:.2g}"
