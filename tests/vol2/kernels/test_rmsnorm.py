"""RMSNorm's kernels beside Volume 1's derivation, their references and torch's checks of operators."""

import numpy as np
import pytest
import torch

from helpers.kernels import errors, numbers, plant, relative_error
from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops.rmsnorm import rmsnorm_backward, rmsnorm_forward

pytestmark = pytest.mark.triton
EPS = 1e-2  # large enough to be seen


@pytest.fixture
def kernels(interpreter):
    from nano_llama.vol2_torch.kernels import rmsnorm

    return rmsnorm


@pytest.fixture
def small_tiles(kernels, monkeypatch):
    """Many programs, and many tiles in each, the last of which are not full."""
    from nano_llama.vol2_torch.kernels import tiles

    monkeypatch.setattr(tiles, "INTERPRETED_TILE", 128)
    monkeypatch.setattr(kernels, "PARTIAL_SUMS", 3)


@pytest.mark.parametrize("shape", [(1, 1), (3, 7, 40), (65, 64), (2, 129)])
def test_both_equal_their_references(kernels, shape):
    x, stream, weight = numbers(*shape), numbers(*shape, seed=5), numbers(shape[-1], seed=6)
    for kernel, reference, inputs in (
        (kernels.rmsnorm, kernels.rmsnorm_reference, (x, weight)),
        (kernels.add_rmsnorm, kernels.add_rmsnorm_reference, (x, stream, weight)),
    ):
        forward, backward = errors(lambda *t, f=kernel: f(*t, EPS), lambda *t, f=reference: f(*t, EPS), *inputs)
        assert forward < 1e-6 and backward < 1e-5


def test_gradients_are_volume_ones(kernels, small_tiles):
    x, stream, weight = numbers(37, 40), numbers(37, 40, seed=5), numbers(40, seed=6)
    dstream, dy = numbers(37, 40, seed=7), numbers(37, 40, seed=8)
    own = [t.clone().requires_grad_() for t in (x, stream, weight)]
    found = torch.autograd.grad(kernels.add_rmsnorm(*own, EPS), own, (dstream, dy))
    _, cache = rmsnorm_forward((x + stream).numpy().astype(np.float64), weight.numpy().astype(np.float64), EPS)
    dx, dweight = rmsnorm_backward(dy.numpy().astype(np.float64), cache)
    wanted = (dx + dstream.numpy(), dx + dstream.numpy(), dweight)
    for one, other in zip(found, wanted, strict=True):
        assert relative_error(one, torch.from_numpy(other)) < 1e-6


def test_gradcheck_in_float64(kernels):
    x, stream, weight = (numbers(*shape, dtype=torch.float64).requires_grad_() for shape in ((2, 3), (2, 3), (3,)))
    assert torch.autograd.gradcheck(lambda *t: kernels.add_rmsnorm(*t, EPS), (x, stream, weight))
    assert torch.autograd.gradcheck(lambda *t: kernels.rmsnorm(*t, EPS), (x, weight))


def test_a_branch_in_half_precision_on_a_wide_stream(kernels):
    """As under autocast: the branch, its gradient and the norm are narrow, the stream and its gradient are not."""
    inputs = numbers(5, 40, dtype=torch.float16), numbers(5, 40, seed=5), numbers(40, seed=6)
    forward, backward = errors(
        lambda *t: kernels.add_rmsnorm(*t, EPS, torch.float16),
        lambda *t: kernels.add_rmsnorm_reference(*t, EPS, torch.float16),
        *inputs,
    )
    assert forward < 1e-3 and backward < 1e-3
    own = [t.clone().requires_grad_() for t in inputs]
    stream, normed = kernels.add_rmsnorm(*own, EPS, torch.float16)
    dx, dstream, _ = torch.autograd.grad((stream, normed), own, (stream, normed))
    assert (stream.dtype, dstream.dtype) == (torch.float32, torch.float32)
    assert (normed.dtype, dx.dtype) == (torch.float16, torch.float16)


def test_the_same_bits_twice(kernels, small_tiles):
    own = [t.requires_grad_() for t in (numbers(50, 24), numbers(50, 24, seed=5), numbers(24, seed=6))]
    first, second = (torch.autograd.grad(sum(y.sum() for y in kernels.add_rmsnorm(*own, EPS)), own) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_operators_of_torch(kernels):
    x, stream, weight = (numbers(*shape).requires_grad_() for shape in ((2, 3, 8), (2, 3, 8), (8,)))
    torch.library.opcheck(kernels._rmsnorm, (x, weight, EPS, torch.float32))
    torch.library.opcheck(kernels._add_rmsnorm, (x, stream, weight, EPS, torch.float16))


def test_bfloat16_is_refused_under_the_interpreter(kernels):
    with pytest.raises(UserError, match="truncates"):
        kernels.rmsnorm(numbers(2, 8, dtype=torch.bfloat16), numbers(8), EPS)
    with pytest.raises(UserError, match="truncates"):
        kernels.rmsnorm(numbers(2, 8), numbers(8), EPS, torch.bfloat16)


@pytest.mark.parametrize(
    "kernel, right, wrong",
    [
        ("rmsnorm_kernel", "axis=1) / D + eps)", "axis=1) / D) + eps"),  # eps outside the root
        ("rmsnorm_kernel", "/ D + eps", "/ WIDTH + eps"),  # the mean over the padded row
        ("rmsnorm_backward_kernel", "dx += tl.load(DSTREAM", "dx += 0.0 * tl.load(DSTREAM"),  # the residual's gradient
        ("rmsnorm_backward_kernel", "r * r * r", "r * r"),
        ("rmsnorm_backward_kernel", "dweight += ", "dweight = "),  # the last tile's alone
    ],
)
def test_a_planted_fault_shows(kernels, small_tiles, monkeypatch, tmp_path, kernel, right, wrong):
    inputs = numbers(37, 40), numbers(37, 40, seed=5), numbers(40, seed=6)
    plant(monkeypatch, tmp_path, kernels, kernel, right, wrong)
    found = errors(lambda *t: kernels.add_rmsnorm(*t, EPS), lambda *t: kernels.add_rmsnorm_reference(*t, EPS), *inputs)
    assert max(found) > 1e-3
