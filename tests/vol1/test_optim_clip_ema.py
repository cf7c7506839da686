"""Clipping against torch's, and the running average against its definition."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.optim import EMA, clip_by_global_norm, global_norm


def draw(scale=1.0):
    rng = np.random.default_rng(0)
    return {"a": scale * rng.standard_normal((40, 30)), "b": scale * rng.standard_normal(7)}


def test_clipping_equals_torch():
    torch = pytest.importorskip("torch")
    grads = draw()
    parameters = []
    for value in grads.values():
        parameters.append(torch.nn.Parameter(torch.zeros(value.shape, dtype=torch.float64)))
        parameters[-1].grad = torch.tensor(value)
    wanted = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    assert clip_by_global_norm(grads, 1.0) == pytest.approx(float(wanted), rel=1e-12)
    for value, parameter in zip(grads.values(), parameters, strict=True):
        np.testing.assert_allclose(value, parameter.grad.numpy(), rtol=1e-6)  # torch adds 1e-6 to the norm
    assert global_norm(grads) == pytest.approx(1.0, rel=1e-12)


def test_a_short_gradient_is_left_alone():
    grads, before = draw(1e-3), draw(1e-3)
    clip_by_global_norm(grads, 1.0)
    for name in grads:
        np.testing.assert_array_equal(grads[name], before[name])


def test_a_norm_that_is_not_finite_is_reported_and_nothing_scaled():
    grads = {"a": np.array([1.0, np.nan]), "b": np.array([2.0])}
    assert np.isnan(clip_by_global_norm(grads, 1.0))
    assert grads["b"][0] == 2.0


def test_transposed_gradients_are_scaled_too():
    grads = {"a": np.full((3, 2), 4.0).T}
    clip_by_global_norm(grads, 1.0)
    assert global_norm(grads) == pytest.approx(1.0)


def test_ema_is_its_weighted_sum():
    values = np.random.default_rng(0).standard_normal((30, 3))
    average = EMA({"w": values[0].copy()}, decay=0.9)
    wanted = values[0]
    for t, value in enumerate(values[1:], start=1):
        average.update({"w": value})
        d = min(0.9, (1 + t) / (10 + t))
        wanted = d * wanted + (1 - d) * value
    np.testing.assert_allclose(average.params["w"], wanted, rtol=1e-12)


def test_ema_resumes_and_refuses_a_decay_of_one():
    average, again = EMA({"w": np.ones(2)}), EMA({"w": np.zeros(2)})
    average.update({"w": np.zeros(2)})
    again.load_state_dict(average.state_dict())
    for ema in (average, again):
        ema.update({"w": np.full(2, 5.0)})
    np.testing.assert_array_equal(average.params["w"], again.params["w"])
    with pytest.raises(UserError, match="decay"):
        EMA({}, 1.0)
