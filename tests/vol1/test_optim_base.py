"""What all optimizers share: resume to the bit, learning in place, and refusals in the user's words."""

import numpy as np
import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.vol1_numpy.optim import OPTIMIZERS, make_optimizer

SHAPES = {
    "model.embed_tokens.weight": (9, 4),
    "model.layers.0.self_attn.q_proj.weight": (4, 4),
    "model.layers.0.mlp.down_proj.weight": (4, 6),
    "model.norm.weight": (4,),
}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resume_changes_no_bit(name):
    straight, first = draw(0), draw(0)
    whole, half = (make_optimizer(name, p, 0.01, weight_decay=0.1) for p in (straight, first))
    for step in range(6):
        whole.step(straight, draw(step + 1))
    for step in range(3):
        half.step(first, draw(step + 1))
    saved = {key: array.copy() for key, array in half.state_dict().items()}
    second = {key: array.copy() for key, array in first.items()}
    rest = make_optimizer(name, second, 0.01, weight_decay=0.1)
    rest.load_state_dict(saved)
    for step in range(3, 6):
        rest.step(second, draw(step + 1))
    for key in SHAPES:
        np.testing.assert_array_equal(straight[key], second[key], err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_minimizes_a_quadratic(name):
    params = draw(0)
    optimizer = make_optimizer(name, params, 0.01)
    start = sum(float(np.sum(p * p)) for p in params.values())
    for _ in range(60):
        optimizer.step(params, {key: p.copy() for key, p in params.items()})  # the gradient of |theta|^2 / 2
    assert sum(float(np.sum(p * p)) for p in params.values()) < 0.7 * start


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_leaves_the_norms_alone(name):
    params = {key: np.ones_like(p) for key, p in draw(0).items()}
    optimizer = make_optimizer(name, params, 0.1, weight_decay=0.5)
    optimizer.step(params, {key: np.zeros_like(p) for key, p in params.items()})
    np.testing.assert_array_equal(params["model.norm.weight"], np.ones(4, np.float32))
    assert np.all(params["model.embed_tokens.weight"] < 1)


def test_the_state_of_another_optimizer_is_refused_by_name():
    params = draw(0)
    saved = make_optimizer("lion", params, 0.1).state_dict()
    with pytest.raises(FormatError, match="AdamW"):
        make_optimizer("adamw", params, 0.1).load_state_dict(saved)
    saved["m.model.norm.weight"] = np.zeros(5, np.float32)
    with pytest.raises(FormatError, match=r"m\.model\.norm\.weight"):
        make_optimizer("lion", params, 0.1).load_state_dict(saved)


def test_impossible_settings_are_refused_with_their_value():
    with pytest.raises(UserError, match="adam0"):
        make_optimizer("adam0", {}, 0.1)
    with pytest.raises(UserError, match=r"-0\.1"):
        make_optimizer("sgd", {}, -0.1)
    with pytest.raises(UserError, match="nan"):
        make_optimizer("sgd", {}, float("nan"))
    with pytest.raises(UserError, match="momentum is 1"):
        make_optimizer("momentum", {}, 0.1, momentum=1.0)
