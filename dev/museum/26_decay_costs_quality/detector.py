"""Weight decay is beside the gradient: without a gradient a weight shrinks by 1 - lr * decay, whatever came before."""

import numpy as np

from nano_llama.vol1_numpy.optim.adamw import AdamW


def after(gradients, decay):
    params = {"a.weight": np.random.default_rng(0).standard_normal((5, 4))}
    start = params["a.weight"].copy()
    optimizer = AdamW(params, 0.01, weight_decay=decay)
    for gradient in gradients:
        optimizer.step(params, {"a.weight": gradient})
    return start, params["a.weight"]


def test_without_a_gradient_it_is_pure_decay():
    start, weight = after([np.zeros((5, 4))] * 3, 0.1)
    assert np.allclose(weight, start * (1 - 0.01 * 0.1) ** 3, rtol=1e-12), (
        f"without gradients weights are {(weight / start).min():.4f} to {(weight / start).max():.4f} of what they were"
    )


def test_decay_changes_no_moment():
    gradients = np.random.default_rng(1).standard_normal((4, 5, 4))
    start, decayed = after(gradients, 0.1)
    _, plain = after(gradients, 0.0)
    steps, expected, previous = [], start, start
    for number in range(1, 5):
        _, now = after(gradients[:number], 0.0)
        steps.append(now - previous)
        previous = now
    for step in steps:
        expected = expected * (1 - 0.01 * 0.1) + step
    assert np.allclose(decayed, expected, rtol=1e-10), "with decay, the steps that the gradients ask for change too"
    assert not np.allclose(decayed, plain)
