"""SwiGLU's kernels beside Volume 1's derivation, their reference and torch's checks of operators."""

import numpy as np
import pytest
import torch

from helpers.kernels import errors, numbers, plant, relative_error
from nano_llama.vol1_numpy.ops.swiglu import swiglu_backward, swiglu_forward

pytestmark = pytest.mark.triton


@pytest.fixture
def kernels(interpreter, monkeypatch):
    from nano_llama.vol2_torch.kernels import swiglu, tiles

    monkeypatch.setattr(tiles, "INTERPRETED_TILE", 64)  # many programs, the last of which is not full
    return swiglu


@pytest.mark.parametrize("shape", [(1,), (3, 7, 40), (65, 9)])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 1e-6), (torch.float16, 1e-3)])
def test_it_equals_its_reference(kernels, shape, dtype, bound):
    gate, up = numbers(*shape, dtype=dtype), numbers(*shape, seed=5, dtype=dtype)
    assert max(errors(kernels.swiglu, kernels.swiglu_reference, gate, up)) < bound


def test_gradients_are_volume_ones_also_far_from_zero(kernels):
    gate, up, dy = 40 * numbers(5, 30), numbers(5, 30, seed=5), numbers(5, 30, seed=6)
    own = [t.clone().requires_grad_() for t in (gate, up)]
    found = torch.autograd.grad(kernels.swiglu(*own), own, dy)
    wide = [t.numpy().astype(np.float64) for t in (gate, up, dy)]
    wanted = swiglu_backward(wide[2], swiglu_forward(*wide[:2])[1])
    for one, other in zip(found, wanted, strict=True):
        assert relative_error(one, torch.from_numpy(other)) < 1e-6


def test_gradcheck_in_float64(kernels):
    own = (
        numbers(2, 3, dtype=torch.float64).requires_grad_(),
        numbers(2, 3, seed=5, dtype=torch.float64).requires_grad_(),
    )
    assert torch.autograd.gradcheck(kernels.swiglu, own)


def test_what_is_not_contiguous_is_copied(kernels):
    gate, up = numbers(6, 10).T, numbers(6, 20, seed=5)[:, ::2].T
    assert max(errors(kernels.swiglu, kernels.swiglu_reference, gate, up)) < 1e-6


def test_operators_of_torch(kernels):
    own = numbers(2, 8).requires_grad_(), numbers(2, 8, seed=5).requires_grad_()
    torch.library.opcheck(kernels._swiglu, own)


@pytest.mark.parametrize(
    "kernel, right, wrong",
    [
        ("swiglu_kernel", "gate * tl.sigmoid(gate) * up", "tl.sigmoid(gate) * up"),
        ("swiglu_backward_kernel", "(1.0 + gate * (1.0 - s))", "(1.0 + gate * s)"),
        ("swiglu_backward_kernel", "(dy * gate * s)", "(dy * s)"),
        ("swiglu_backward_kernel", "* WIDTH + tl.arange", "+ tl.arange"),  # programs that overlap
    ],
)
def test_a_planted_fault_shows(kernels, monkeypatch, tmp_path, kernel, right, wrong):
    plant(monkeypatch, tmp_path, kernels, kernel, right, wrong)
    found = errors(kernels.swiglu, kernels.swiglu_reference, numbers(3, 7, 40), numbers(3, 7, 40, seed=5))
    assert not max(found) < 1e-3
