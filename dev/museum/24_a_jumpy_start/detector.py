"""Three steps by hand: algorithm 2 of Loshchilov and Hutter, written down as it stands."""

import numpy as np

from nano_llama.vol1_numpy.optim.adamw import AdamW, PlainAdamW


def by_hand(weight, gradients, lr, betas, eps, decay):
    weight, m, v = weight.copy(), 0.0, 0.0
    for t, g in enumerate(gradients, 1):
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g * g
        step = (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
        weight = weight - lr * (step + decay * weight)
    return weight


def test_three_steps():
    rng = np.random.default_rng(0)
    for kind in (AdamW, PlainAdamW):
        for betas, decay in (((0.9, 0.999), 0.0), ((0.9, 0.95), 0.1), ((0.0, 0.99), 0.1)):
            start, gradients = rng.standard_normal((4, 3)), rng.standard_normal((3, 4, 3))
            params = {"a.weight": start.copy()}
            optimizer = kind(params, 0.01, betas=betas, eps=1e-8, weight_decay=decay)
            for number, gradient in enumerate(gradients, 1):
                optimizer.step(params, {"a.weight": gradient})
                expected = by_hand(start, gradients[:number], 0.01, betas, 1e-8, decay)
                moved, should = abs(params["a.weight"] - start).max(), abs(expected - start).max()
                assert np.allclose(params["a.weight"], expected, rtol=0, atol=1e-12), (
                    f"betas {betas}: after step {number} a weight has moved by {moved:.4g}, by hand by {should:.4g}"
                )
