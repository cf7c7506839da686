"""Lion against its paper's algorithm, written here a second time, on scalars."""

import numpy as np

from nano_llama.vol1_numpy.optim import Lion


def paper(theta, gradients, lr, b1, b2, decay):
    """Algorithm 2 of Chen et al. 2023, one weight at a time."""
    memory = 0.0
    for g in gradients:
        update = b1 * memory + (1 - b1) * g
        update = 1 if update > 0 else -1 if update < 0 else 0
        memory = b2 * memory + (1 - b2) * g
        theta = theta - lr * (update + decay * theta)
    return theta


def test_twenty_steps_equal_the_paper():
    rng = np.random.default_rng(0)
    start, gradients = rng.standard_normal((4, 3)), rng.standard_normal((20, 4, 3))
    params = {"w": start.copy()}
    optimizer = Lion(params, 0.02, betas=(0.85, 0.97), weight_decay=0.3)
    for gradient in gradients:
        optimizer.step(params, {"w": gradient})
    for i, j in np.ndindex(4, 3):
        wanted = paper(start[i, j], gradients[:, i, j], 0.02, 0.85, 0.97, 0.3)
        assert abs(params["w"][i, j] - wanted) < 1e-13


def test_a_zero_gradient_moves_nothing():
    params = {"w": np.array([1.0])}
    Lion(params, 0.1).step(params, {"w": np.array([0.0])})
    assert params["w"][0] == 1.0
