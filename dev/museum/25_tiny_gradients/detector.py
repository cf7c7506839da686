"""Steps of Adam and AdamW against algorithm 1, number by number, with gradients as small as eps."""

import numpy as np

from nano_llama.vol1_numpy.optim.adam import Adam
from nano_llama.vol1_numpy.optim.adamw import AdamW, PlainAdamW

LR, B1, B2, EPS = 0.1, 0.9, 0.999, 1e-8


def by_the_paper(gradients):
    """Where a weight of 0 is after each step."""
    theta = m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m, v = B1 * m + (1 - B1) * g, B2 * v + (1 - B2) * g * g
        theta -= LR * (m / (1 - B1**t)) / ((v / (1 - B2**t)) ** 0.5 + EPS)
        yield theta


def test_steps_are_the_paper_s():
    rng = np.random.default_rng(0)
    for optimizer in (Adam, PlainAdamW, AdamW):
        for size in (1.0, 1e-4, 1e-7, 1e-8, 1e-9):
            gradients = size * rng.standard_normal(6)
            params = {"w": np.zeros(3)}
            rule = optimizer(params, lr=LR, betas=(B1, B2), eps=EPS)
            for t, (g, expected) in enumerate(zip(gradients, by_the_paper(gradients), strict=True), start=1):
                rule.step(params, {"w": np.full(3, g)})
                got = params["w"][0]
                assert np.isclose(got, expected, rtol=1e-9, atol=0), (
                    f"{optimizer.__name__}, gradients of size {size:g}: after step {t} a weight has moved by {got:.4g}"
                    f" instead of {expected:.4g}"
                )
