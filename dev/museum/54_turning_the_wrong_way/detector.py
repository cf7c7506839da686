"""The rotation's backward undoes its forward: a rotation keeps lengths, and its transpose is its inverse."""

import numpy as np

from nano_llama.vol1_numpy.ops.rope import rope_backward, rope_backward_fast, rope_forward, rope_forward_fast


def test_backward_is_the_way_back():
    rng = np.random.default_rng(0)
    x, angles = rng.standard_normal((2, 3, 5, 8)), rng.uniform(-3, 3, (5, 4))
    for forward, backward in ((rope_forward, rope_backward), (rope_forward_fast, rope_backward_fast)):
        for layout in ("half", "interleaved"):
            y, cache = forward(x, np.cos(angles), np.sin(angles), layout)
            assert np.allclose(np.sum(y * y), np.sum(x * x)), "the rotation changes lengths"
            assert np.allclose(backward(y, cache), x), f"{layout}: there and back is not where it began"
