"""DoRA's linear layer: what it starts as, what it stands for, Volume 2's autograd, and what its gradient leaves out.

Its gradients by differences, the lengths held constant: test_ops_gradients.py.
"""

import numpy as np
import pytest

from helpers.op_references import relative_error
from nano_llama.core.lora import LoraConfig
from nano_llama.vol1_numpy import gradcheck
from nano_llama.vol1_numpy.gradcheck import central_difference
from nano_llama.vol1_numpy.ops import dora_linear_backward, dora_linear_forward, linear_forward, row_lengths

SCALE = LoraConfig(r=3, alpha=5).scale


def draw(seed=0, out=7, columns=5, r=3):
    """weight, A, B, m, x, dy"""
    rng = np.random.default_rng(seed)
    shapes = ((out, columns), (r, columns), (out, r), (out,), (2, 6, columns), (2, 6, out))
    return [rng.standard_normal(shape) for shape in shapes]


def forward(x, weight, A, B, m):
    """With the lengths that these matrices have."""
    return dora_linear_forward(x, weight, A, B, m, SCALE, row_lengths(weight, A, B, SCALE))


def test_with_b_zero_and_the_rows_own_lengths_it_is_the_frozen_layer():
    weight, A, B, _, x, _ = draw()
    y, _ = forward(x, weight, A, 0 * B, np.linalg.norm(weight, axis=1))
    np.testing.assert_allclose(y, linear_forward(x, weight)[0], rtol=1e-13, atol=1e-13)


def test_it_is_the_linear_layer_of_a_matrix_whose_rows_have_the_learned_lengths():
    weight, A, B, m, x, _ = draw(1)
    merged = forward(np.eye(5), weight, A, B, m)[0].T  # (out, in)
    np.testing.assert_allclose(np.linalg.norm(merged, axis=1), np.abs(m), rtol=1e-12)
    np.testing.assert_allclose(forward(x, weight, A, B, m)[0], linear_forward(x, merged)[0], rtol=1e-12, atol=1e-12)


def test_volume_2s_autograd_agrees():
    torch = pytest.importorskip("torch")
    from nano_llama.vol2_torch.lora_linear import LoraLinear

    weight, A, B, m, x, dy = draw(2)
    layer = LoraLinear(torch.nn.Parameter(torch.tensor(weight), False), LoraConfig(r=3, alpha=5, dora=True))
    learned = {"lora_A": A, "lora_B": B, "lora_magnitude_vector": m}
    layer.load_state_dict({"weight": torch.tensor(weight)} | {n: torch.tensor(p) for n, p in learned.items()})
    their_x = torch.tensor(x, requires_grad=True)
    theirs = layer(their_x)
    theirs.backward(torch.tensor(dy))
    y, cache = forward(x, weight, A, B, m)
    dx, *grads = dora_linear_backward(dy, cache)
    assert relative_error(y, theirs.detach().numpy()) < 1e-12
    assert relative_error(dx, their_x.grad.numpy()) < 1e-10
    for name, grad in zip(learned, grads, strict=True):
        assert relative_error(grad, layer.get_parameter(name).grad.numpy()) < 1e-10, name


def test_where_the_lengths_move_too_the_derivative_is_what_the_docstring_says():
    """Differences of the whole layer: those of x and m agree; those of A and B lack the part along the rows."""
    weight, A, B, m, x, dy = draw(3)
    gradcheck(forward, lambda dy, cache: dora_linear_backward(dy, cache)[::3], dict(zip(
        ("x", "weight", "A", "B", "m"), (x, weight, A, B, m), strict=True)), wrt=["x", "m"])  # fmt: skip

    V = weight + SCALE * B @ A
    lengths = np.linalg.norm(V, axis=1)
    v = V / lengths[:, None]  # directions
    dV = np.einsum("bto,bti->oi", dy, x) * (m / lengths)[:, None]  # lengths held constant
    whole = dV - v * np.sum(v * dV, axis=1, keepdims=True)
    _, dA, dB, _ = dora_linear_backward(dy, forward(x, weight, A, B, m)[1])
    for ours, array, through in ((dA, A, lambda d: SCALE * B.T @ d), (dB, B, lambda d: SCALE * d @ A.T)):
        np.testing.assert_allclose(ours, through(dV), rtol=1e-11, atol=1e-11)
        measured = np.array([
            central_difference(lambda: float(np.sum(forward(x, weight, A, B, m)[0] * dy)), array, index)
            for index in np.ndindex(array.shape)
        ]).reshape(array.shape)  # fmt: skip
        assert relative_error(through(whole), measured) < 1e-8
        assert relative_error(ours, measured) > 0.05


def test_a_row_of_zeros_stays_one():
    weight, A, B, m, x, dy = draw(4)
    weight[2], B[2], m[2] = 0, 0, 0
    y, cache = forward(x, weight, A, B, m)
    assert not y[..., 2].any()
    assert all(np.isfinite(grad).all() for grad in dora_linear_backward(dy, cache))
