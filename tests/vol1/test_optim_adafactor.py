"""Adafactor against torch's, against the paper written out with loops, and its claim about the best rank-one V."""

import numpy as np
import pytest

from nano_llama.vol1_numpy.optim import Adafactor

SHAPES = {"model.layers.0.mlp.up_proj.weight": (7, 5), "model.norm.weight": (5,)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def test_fifteen_steps_equal_torch():
    torch = pytest.importorskip("torch")
    params = draw(0)
    copies = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    groups = [{"params": [p], "weight_decay": 0.1 if p.ndim == 2 else 0.0} for p in copies.values()]
    optimizer = Adafactor(params, 0.02, weight_decay=0.1)
    reference = torch.optim.Adafactor(groups, lr=0.02)
    for step in range(15):
        grads = draw(step + 1)
        optimizer.step(params, grads)
        for name, copy in copies.items():
            copy.grad = torch.tensor(grads[name])
        reference.step()
    for name, copy in copies.items():
        np.testing.assert_allclose(params[name], copy.detach().numpy(), rtol=1e-10, err_msg=name)


def test_ten_steps_equal_the_paper():
    """Algorithm 4, an entry at a time, with a large eps1 so that it shows."""
    rng = np.random.default_rng(0)
    theta, rate, eps1, eps2, d = rng.standard_normal((3, 4)), 0.5, 0.01, 1e-3, 1.0
    params = {"w": theta.copy()}
    optimizer = Adafactor(params, rate, eps1=eps1)
    rows, columns = np.zeros(3), np.zeros(4)
    for t in range(1, 11):
        g = rng.standard_normal((3, 4)) * t
        optimizer.step(params, {"w": g})
        b = 1 - t**-0.8
        for i in range(3):
            rows[i] = b * rows[i] + (1 - b) * sum(g[i, j] ** 2 + eps1 for j in range(4))
        for j in range(4):
            columns[j] = b * columns[j] + (1 - b) * sum(g[i, j] ** 2 + eps1 for i in range(3))
        update = np.array([[g[i, j] / np.sqrt(rows[i] * columns[j] / sum(rows)) for j in range(4)] for i in range(3)])
        # algorithm 4 keeps sums; ours keeps means, so that V is g^2's scale: the sums' V is the same number
        update /= max(1.0, np.sqrt(np.mean(update**2)) / d)
        theta = theta - max(eps2, np.sqrt(np.mean(theta**2))) * min(rate, t**-0.5) * update
    np.testing.assert_allclose(params["w"], theta, rtol=1e-11)


def test_the_rank_one_second_moment_keeps_the_sums_of_rows_and_columns():
    params, g = {"w": np.ones((3, 4))}, np.random.default_rng(1).standard_normal((3, 4))
    optimizer = Adafactor(params)
    optimizer.step(params, {"w": g})
    rows, columns = optimizer.state["rows"]["w"], optimizer.state["columns"]["w"]
    v = rows @ columns / rows.mean()
    np.testing.assert_allclose(v.sum(axis=0), (g * g).sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(v.sum(axis=1), (g * g).sum(axis=1), rtol=1e-12)


def test_zero_gradients_in_float32_stay_finite():
    params = {"w": np.ones((3, 4), np.float32), "norm.weight": np.ones(3, np.float32)}
    optimizer = Adafactor(params)
    for _ in range(3):
        optimizer.step(params, {name: np.zeros_like(value) for name, value in params.items()})
    assert all(np.array_equal(value, np.ones_like(value)) for value in params.values())
