"""y = x / sqrt(mean(x^2) + eps) * gain, for rows of every size, and its gradient."""

import numpy as np

from nano_llama.vol1_numpy.gradcheck import gradcheck
from nano_llama.vol1_numpy.ops.rmsnorm import (
    rmsnorm_backward,
    rmsnorm_backward_fast,
    rmsnorm_forward,
    rmsnorm_forward_fast,
)

FORMS = ((rmsnorm_forward, rmsnorm_backward), (rmsnorm_forward_fast, rmsnorm_backward_fast))


def test_rows_of_every_size():
    rng = np.random.default_rng(4)
    gain = rng.standard_normal(12)
    for eps in (1e-6, 1e-5, 0.1):
        for size in (1.0, 50.0, 0.1, 3e-3, 1e-4, 0.0):
            x = size * rng.standard_normal((3, 12))
            expected = x * ((x * x).sum(-1, keepdims=True) / 12 + eps) ** -0.5 * gain
            for forward, _ in FORMS:
                y = forward(x, gain, eps)[0]
                ratio = abs(y).sum() / max(abs(expected).sum(), 1e-300)
                assert np.allclose(y, expected, rtol=1e-9, atol=0), (
                    f"a row of numbers of size {size:g} with eps = {eps:g} becomes {ratio:.3g} times what it should"
                )


def test_gradients_where_eps_counts():
    rng = np.random.default_rng(5)
    for size in (1.0, 0.3):
        x, gain = size * rng.standard_normal((2, 6)), rng.standard_normal(6)
        for forward, backward in FORMS:
            gradcheck(forward, backward, [x, gain, 0.3], wrt=["x", "weight"])
