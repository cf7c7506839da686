"""Adam and AdamW against torch's; the tiled AdamW against the plain one."""

import numpy as np
import pytest

from nano_llama.vol1_numpy.optim import Adam, AdamW, PlainAdamW
from nano_llama.vol1_numpy.optim.adamw import CHUNK_ELEMENTS

SHAPES = {
    "model.layers.0.mlp.up_proj.weight": (7, 5),
    "model.norm.weight": (5,),
    "lm_head.weight": (3, CHUNK_ELEMENTS // 2),
}


def random_params(dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(("ours", "theirs"), [(Adam, "Adam"), (PlainAdamW, "AdamW"), (AdamW, "AdamW")])
def test_twelve_steps_equal_torch(ours, theirs):
    torch = pytest.importorskip("torch")
    params = random_params()
    copies = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in params.items()}
    groups = [{"params": [p], "weight_decay": 0.1 if p.ndim == 2 else 0.0} for p in copies.values()]
    settings = {"lr": 0.03, "betas": (0.8, 0.95), "eps": 1e-3}  # a large epsilon, so that its place shows
    optimizer = ours(params, weight_decay=0.1, **settings)
    reference = getattr(torch.optim, theirs)(groups, **settings)
    for step in range(12):
        grads = random_params(seed=step + 1)
        optimizer.step(params, grads)
        for name, copy in copies.items():
            copy.grad = torch.tensor(grads[name])
        reference.step()
    for name, copy in copies.items():
        np.testing.assert_allclose(params[name], copy.detach().numpy(), rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiles_equal_the_plain_form(dtype):
    fast, plain = random_params(dtype), random_params(dtype)
    tiled, reference = AdamW(fast, 0.01, weight_decay=0.1), PlainAdamW(plain, 0.01, weight_decay=0.1)
    for step in range(10):
        grads = random_params(dtype, seed=step + 1)
        tiled.step(fast, grads, lr=0.01 / (step + 1))
        reference.step(plain, grads, lr=0.01 / (step + 1))
    for name in SHAPES:
        assert fast[name].dtype == dtype
        np.testing.assert_allclose(fast[name], plain[name], atol=10 * np.finfo(dtype).eps, err_msg=name)


def test_a_transposed_gradient_gives_the_same_step():
    params = {"w": np.zeros((4, 3))}
    gradient = np.arange(12.0).reshape(3, 4).T
    optimizer, copy = AdamW(params, 0.1), {"w": np.zeros((4, 3))}
    optimizer.step(params, {"w": gradient})
    AdamW(copy, 0.1).step(copy, {"w": np.ascontiguousarray(gradient)})
    np.testing.assert_array_equal(params["w"], copy["w"])


def test_a_parameter_that_is_not_contiguous_is_refused():
    params = {"w": np.zeros((4, 3)).T}
    with pytest.raises(AssertionError, match="w is not contiguous"):
        AdamW(params).step(params, params)


def test_the_first_step_has_the_length_of_the_learning_rate():
    """With the bias corrections m^ = g and v^ = g^2 at t = 1, so the step is lr sign(g), whatever the scale."""
    params = {"w": np.zeros(3)}
    Adam(params, 0.1).step(params, {"w": np.array([1e-4, -5.0, 3e3])})
    np.testing.assert_allclose(params["w"], [-0.1, 0.1, -0.1], rtol=1e-3)
