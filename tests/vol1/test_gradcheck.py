"""gradcheck accepts right gradients, and names argument and index of a wrong one."""

import numpy as np
import pytest

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy import GradientMismatch, Llama, gradcheck, gradcheck_model
from nano_llama.vol1_numpy.gradcheck import central_difference


def scale_forward(x, factor, power=2):
    return factor * x**power, (x, factor, power)


def scale_backward(dy, cache):
    x, factor, power = cache
    return dy * factor * power * x ** (power - 1), np.sum(dy * x**power, axis=0)


@pytest.fixture
def inputs():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((4, 3)), "factor": rng.standard_normal(3), "power": 3}


def test_five_points_are_exact_for_a_polynomial_of_degree_four():
    x = np.array([0.7])
    value = central_difference(lambda: float(x[0] ** 4 - 2 * x[0] ** 3), x, (0,), step=0.5)  # however long the step
    assert value == pytest.approx(4 * 0.7**3 - 6 * 0.7**2, rel=1e-13)
    assert x[0] == 0.7


def test_a_right_gradient_passes_and_inputs_are_unchanged(inputs):
    kept = {name: np.copy(value) for name, value in inputs.items()}
    checks = gradcheck(scale_forward, scale_backward, inputs)
    assert [(c.name, c.num_checked) for c in checks] == [("x", 12), ("factor", 3)]
    assert all(c.relative_error < 1e-10 for c in checks)
    for name, value in inputs.items():
        np.testing.assert_array_equal(value, kept[name])


def test_inputs_may_come_in_order_and_names_come_from_the_signature(inputs):
    checks = gradcheck(scale_forward, scale_backward, list(inputs.values()), samples=2)
    assert [(c.name, c.num_checked) for c in checks] == [("x", 2), ("factor", 2)]


@pytest.mark.parametrize(("wrong", "index"), [(0, (2, 1)), (1, (1,))])
def test_a_wrong_entry_is_named(inputs, wrong, index):
    def planted(dy, cache):
        grads = scale_backward(dy, cache)
        grads[wrong][index] += 1e-3
        return grads

    name, other = ["x", "factor"][wrong], ["factor", "x"][wrong]
    with pytest.raises(GradientMismatch, match=rf"planted: gradient of '{name}', worst at \[{index[0]}") as caught:
        gradcheck(scale_forward, planted, inputs)
    assert other not in str(caught.value)
    assert {c.name: c.worst for c in caught.value.checks}[name] == index


def test_nan_missing_and_misshapen_gradients_are_wrong_too(inputs):
    def nan(dy, cache):
        dx, dfactor = scale_backward(dy, cache)
        return np.where(dx == dx[1, 1], np.nan, dx), dfactor

    with pytest.raises(GradientMismatch, match=r"'x', worst at \[1, 1\]"):
        gradcheck(scale_forward, nan, inputs)
    with pytest.raises(GradientMismatch, match="1 gradients for 2"):
        gradcheck(scale_forward, lambda dy, cache: scale_backward(dy, cache)[0], inputs)
    with pytest.raises(GradientMismatch, match=r"'factor' has shape \(1, 3\)"):
        gradcheck(scale_forward, lambda dy, c: (scale_backward(dy, c)[0], scale_backward(dy, c)[1][None]), inputs)


def test_wrt_chooses_the_arguments(inputs):
    checks = gradcheck(scale_forward, lambda dy, cache: scale_backward(dy, cache)[1], inputs, wrt=["factor"])
    assert [c.name for c in checks] == ["factor"]
    with pytest.raises(UserError, match="'power' is not a floating-point array"):
        gradcheck(scale_forward, scale_backward, inputs, wrt=["power"])


def test_float32_is_refused(inputs):
    with pytest.raises(UserError, match="float64"):
        gradcheck(scale_forward, scale_backward, inputs | {"x": inputs["x"].astype(np.float32)})


def test_samples_hit_the_largest_entries_and_the_seed_decides_the_rest():
    x = np.linspace(0, 1, 1000)

    def backward(dy, cache):
        (grad,) = (2 * dy * x,)
        grad[np.argmax(np.abs(grad))] *= 1.01  # among the largest: always seen
        return grad

    for seed in range(5):
        with pytest.raises(GradientMismatch):
            gradcheck(lambda x: (x**2, None), backward, {"x": x.copy()}, samples=4, seed=seed)


def test_a_scalar_op_is_checked():
    gradcheck(lambda x: (float(np.sum(np.sin(x))), x), lambda dy, x: dy * np.cos(x), [np.ones((2, 2))])


def test_a_model_is_checked_and_its_parameters_are_put_back(tiny_config):
    model = Llama.init(tiny_config("gqa"), seed=1, dtype=np.float64)
    kept = {name: param.copy() for name, param in model.params.items()}
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 101, (2, 2, 6))
    checks = gradcheck_model(model, tokens, targets, samples=2)
    assert [c.name for c in checks] == list(model.params)
    for name, param in model.params.items():
        np.testing.assert_array_equal(param, kept[name])
    with pytest.raises(UserError, match="float32"):
        gradcheck_model(Llama.init(tiny_config("gqa")), tokens, targets)


def relu_forward(x):
    return np.maximum(x, 0), (x,)


def relu_backward(dy, cache):
    (x,) = cache
    return dy * (x > 0)


def test_a_kink_beside_a_point_is_stepped_around():
    """1e-4 from the kink, the points 2e-4 away lie on both sides of it."""
    x = np.array([-1e-4, 1e-4, 3e-4, 0.5, -0.5])
    assert all(check.relative_error < 1e-7 for check in gradcheck(relu_forward, relu_backward, (x,)))
    with pytest.raises(GradientMismatch, match=r"worst at \[1\]") as caught:  # and a wrong slope is still caught there
        gradcheck(relu_forward, lambda dy, cache: dy * (cache[0] > 2e-4), (x,))
    assert caught.value.checks[0].analytic == 0 and not caught.value.checks[0].kink


def test_a_kink_at_a_point_is_named():
    with pytest.raises(GradientMismatch, match="is there a kink, such as ReLU's at 0"):
        gradcheck(relu_forward, relu_backward, (np.array([0.0, 1.0]),))
    with pytest.raises(GradientMismatch) as caught:  # where the op is smooth nothing is said of kinks
        gradcheck(lambda x: (x**2, (x,)), lambda dy, cache: dy * cache[0], (np.array([0.3, 1.0]),))
    assert "kink" not in str(caught.value)


def test_a_forward_without_cache_and_a_wrong_name_are_user_errors():
    x = np.ones(3)
    with pytest.raises(UserError, match=r"one ndarray; expected two, \(out, cache\)"):
        gradcheck(lambda x: x**2, lambda dy, cache: dy, (x,))
    with pytest.raises(UserError, match="3 values"):
        gradcheck(lambda x: (x, x, x), lambda dy, cache: dy, (x,))
    with pytest.raises(UserError, match=r"relu_forward: .*'y'") as caught:
        gradcheck(relu_forward, relu_backward, {"y": x})
    assert caught.value.hint == "It takes x."


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({"x": [1.0, 2.0]}, "x is a list"),
        ({"x": np.arange(3)}, "x is an array of int64"),
        ({"x": 0.5}, "x is a float"),
    ],
)
def test_inputs_of_which_none_is_a_float_array_are_named(inputs, says):
    with pytest.raises(UserError, match=rf"nothing to check among the inputs: {says}\.\n.*dtype=float"):
        gradcheck(lambda x: (np.square(x), x), lambda dy, x: 2 * x * dy, inputs)


def test_a_backward_of_other_arguments_or_without_a_return_is_named():
    x = np.ones(3)
    for backward in (lambda dy: dy, lambda dy, x, more: dy):
        with pytest.raises(UserError, match=r"does not take \(dout, cache\)"):
            gradcheck(lambda x: (x**2, x), backward, (x,))
    with pytest.raises(GradientMismatch, match="returned None"):
        gradcheck(lambda x: (x**2, x), lambda dy, x: None, (x,))
