"""The references of the gradient exercises against PyTorch's own functions and its autograd."""

import numpy as np
import pytest

from nano_llama.learn import exercise
from nano_llama.learn.stages import load

torch = pytest.importorskip("torch")
F = torch.nn.functional
RNG = np.random.default_rng(0)


def reference(name):
    return load(exercise(name).folder / "solution.py")


def leaf(array):
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def assert_equal(ours, theirs):
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-12, atol=1e-14)


def test_bias():
    x, w, b = RNG.standard_normal((2, 3, 4)), RNG.standard_normal((5, 4)), RNG.standard_normal(5)
    dy = RNG.standard_normal((2, 3, 5))
    module, leaves = reference("bias"), [leaf(array) for array in (x, w, b)]
    y, cache = module.linear_forward(x, w, b)
    theirs = F.linear(*leaves)
    assert_equal(y, theirs)
    theirs.backward(torch.tensor(dy))
    for grad, tensor in zip(module.linear_backward(dy, cache), leaves, strict=True):
        assert_equal(grad, tensor.grad)


def test_max_norm():
    tokens, E, dy = np.array([0, 2, 2, 1]), RNG.standard_normal((4, 3)), RNG.standard_normal((4, 3))
    module, table = reference("max_norm"), leaf(E)
    y, cache = module.max_norm_forward(tokens, E, 1.0)
    rows = table[torch.tensor(tokens)]
    theirs = rows * torch.clamp(1.0 / rows.norm(dim=-1, keepdim=True), max=1)
    assert_equal(y, theirs)
    theirs.backward(torch.tensor(dy))
    assert_equal(module.max_norm_backward(dy, cache), table.grad)


def test_temperature():
    x, dy = RNG.standard_normal((3, 4)), RNG.standard_normal((3, 4))
    module, leaves = reference("temperature"), [leaf(x), leaf(0.6)]
    y, cache = module.softmax_forward(x, np.array(0.6))
    theirs = F.softmax(leaves[0] / leaves[1], dim=-1)
    assert_equal(y, theirs)
    theirs.backward(torch.tensor(dy))
    for grad, tensor in zip(module.softmax_backward(dy, cache), leaves, strict=True):
        assert_equal(grad, tensor.grad)


def test_label_smoothing():
    x, targets = RNG.standard_normal((5, 4)), np.array([0, -100, 3, 2, -100])
    module, logits = reference("label_smoothing"), leaf(x)
    loss, cache = module.smoothed_forward(x, targets, 0.3)
    theirs = F.cross_entropy(logits, torch.tensor(targets), label_smoothing=0.3)
    assert_equal(loss, theirs)
    theirs.backward()
    assert_equal(module.smoothed_backward(1.0, cache), logits.grad)


def test_soft_cap():
    x, targets = 3 * RNG.standard_normal((5, 4)), np.array([0, 1, 3, 2, 1])
    module, logits = reference("soft_cap"), leaf(x)
    loss, cache = module.capped_forward(x, targets, 1.5)
    theirs = F.cross_entropy(1.5 * torch.tanh(logits / 1.5), torch.tensor(targets))
    assert_equal(loss, theirs)
    theirs.backward()
    assert_equal(module.capped_backward(1.0, cache), logits.grad)


@pytest.mark.parametrize(("name", "prefix"), [("one_plus_gain", "norm"), ("qk_norm", "qk_norm")])
def test_norms(name, prefix):
    x, w, dy = RNG.standard_normal((2, 3, 2, 4)), RNG.standard_normal(4), RNG.standard_normal((2, 3, 2, 4))
    if name == "qk_norm":
        w = RNG.standard_normal((2, 4))
    module, leaves = reference(name), [leaf(x), leaf(w)]
    y, cache = getattr(module, f"{prefix}_forward")(x, w, 1e-3)
    theirs = F.rms_norm(leaves[0], (4,), eps=1e-3) * (leaves[1] + (name == "one_plus_gain"))
    assert_equal(y, theirs)
    theirs.backward(torch.tensor(dy))
    for grad, tensor in zip(getattr(module, f"{prefix}_backward")(dy, cache), leaves, strict=True):
        assert_equal(grad, tensor.grad)


def test_residual_norm():
    x, delta, dh, dy = RNG.standard_normal((4, 3, 5))
    w = RNG.standard_normal(5)
    module, leaves = reference("residual_norm"), [leaf(array) for array in (x, delta, w)]
    (h, y), cache = module.residual_norm_forward(x, delta, w, 1e-3)
    total = leaves[0] + leaves[1]
    theirs = F.rms_norm(total, (5,), leaves[2], 1e-3)
    assert_equal(h, total)
    assert_equal(y, theirs)
    torch.autograd.backward([total, theirs], [torch.tensor(dh), torch.tensor(dy)])
    for grad, tensor in zip(module.residual_norm_backward(dh, dy, cache), leaves, strict=True):
        assert_equal(grad, tensor.grad)


def test_low_rank():
    shapes = ((3, 4), (5, 4), (2, 4), (5, 2))
    x, W, A, B = (RNG.standard_normal(shape) for shape in shapes)
    dy = RNG.standard_normal((3, 5))
    module, leaves = reference("low_rank"), [leaf(array) for array in (x, A, B)]
    y, cache = module.low_rank_forward(x, W, A, B, 0.5)
    theirs = leaves[0] @ torch.tensor(W).T + 0.5 * leaves[0] @ leaves[1].T @ leaves[2].T
    assert_equal(y, theirs)
    theirs.backward(torch.tensor(dy))
    for grad, tensor in zip(module.low_rank_backward(dy, cache), leaves, strict=True):
        assert_equal(grad, tensor.grad)
