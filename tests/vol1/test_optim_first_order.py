"""SGD, momentum and Nesterov against torch.optim.SGD, and Nesterov's re-parametrization against the original form."""

import numpy as np
import pytest

from nano_llama.vol1_numpy.optim import SGD, Momentum, Nesterov

NAMES = {"model.layers.0.mlp.up_proj.weight": (7, 5), "model.norm.weight": (5,)}


def run_both(make_ours, make_torch, steps=12, lr=0.05):
    """Both optimizers on one quadratic-plus-noise gradient sequence; -> ours, theirs as {name: array}."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    ours = {name: rng.standard_normal(shape) for name, shape in NAMES.items()}
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in ours.items()}
    optimizer, reference = make_ours(ours, lr), make_torch(torch, theirs, lr)
    for _ in range(steps):
        grads = {name: rng.standard_normal(shape) for name, shape in NAMES.items()}
        optimizer.step(ours, grads)
        for name, parameter in theirs.items():
            parameter.grad = torch.tensor(grads[name])
        reference.step()
    return ours, {name: parameter.detach().numpy() for name, parameter in theirs.items()}


@pytest.mark.parametrize(
    ("ours", "options"),
    [(SGD, {}), (Momentum, {"momentum": 0.9}), (Nesterov, {"momentum": 0.9, "nesterov": True})],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_twelve_steps_equal_torch(ours, options, decay):
    def reference(torch, params, lr):
        matrices = [p for p in params.values() if p.ndim == 2]
        vectors = [p for p in params.values() if p.ndim == 1]
        groups = [{"params": matrices, "weight_decay": decay}, {"params": vectors, "weight_decay": 0.0}]
        return torch.optim.SGD(groups, lr=lr, **options)

    found, wanted = run_both(lambda p, lr: ours(p, lr, weight_decay=decay), reference)
    for name in NAMES:
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-12, atol=1e-13, err_msg=name)


def test_nesterov_is_the_look_ahead_method():
    """On f = x^2 a/2, written as Nesterov did: the gradient at the point ahead; our parameter is that point."""
    curvature, lr, mu = np.array([1.0, 10.0]), 0.03, 0.8
    base, velocity = np.array([1.0, -2.0]), np.zeros(2)
    ours = {"x": base.copy()}
    optimizer = Nesterov(ours, lr, momentum=mu)
    for _ in range(15):
        optimizer.step(ours, {"x": curvature * ours["x"]})
        velocity = mu * velocity + curvature * (base - lr * mu * velocity)
        base = base - lr * velocity
    np.testing.assert_allclose(ours["x"], base - lr * mu * velocity, rtol=1e-12)
    assert not np.allclose(ours["x"], base, rtol=1e-3)
