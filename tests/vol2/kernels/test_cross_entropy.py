"""The lean cross-entropy beside Volume 1's derivation, the plain forms and torch's checks of operators."""

import numpy as np
import pytest
import torch

from helpers.kernels import errors, numbers, plant, relative_error
from nano_llama.vol1_numpy.ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from nano_llama.vol2_torch import loss
from nano_llama.vol2_torch.loss import gradient_in_place, head_loss

pytestmark = pytest.mark.triton


@pytest.fixture
def kernels(interpreter):
    from nano_llama.vol2_torch.kernels import cross_entropy

    return cross_entropy


def targets_below(V, N, ignore=3):
    targets = torch.randint(0, V, (N,), generator=torch.Generator().manual_seed(3))
    targets[::ignore] = -100
    targets[1] = V - 1
    return targets


@pytest.mark.parametrize("V", [2, 65, 4096, 50257])
@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_loss_and_gradient_equal_the_references(kernels, V, z_loss):
    logits, targets = 4 * numbers(11, V), targets_below(V, 11)
    wanted, gradient = gradient_in_place(logits.clone(), targets, z_loss)
    found, changed = kernels.gradient_by_kernel(logits, targets, z_loss)
    assert changed.data_ptr() == logits.data_ptr(), "in place"
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert relative_error(logits, gradient) < 1e-5
    assert not logits[targets == -100].any()


def test_gradient_is_volume_ones(kernels):
    logits, targets = numbers(13, 100), targets_below(100, 13)
    mean, cache = cross_entropy_forward(logits.numpy().astype(np.float64), targets.numpy(), z_loss=0.01)
    counted = int((targets != -100).sum())
    wanted = cross_entropy_backward(counted, cache)
    found, gradient = kernels.gradient_by_kernel(logits, targets, 0.01)
    assert found.item() == pytest.approx(mean * counted, rel=1e-6)
    assert relative_error(gradient, torch.from_numpy(wanted)) < 1e-6


def test_logits_that_a_single_exponential_would_overflow(kernels):
    logits = torch.tensor([[1e4, 0.0, -1e4], [-3e4, -3e4 + 1, -3e4]])
    wanted, gradient = gradient_in_place(logits.clone(), torch.tensor([1, 1]), 0.0)
    found, changed = kernels.gradient_by_kernel(logits, torch.tensor([1, 1]), 0.0)
    assert found.item() == pytest.approx(wanted.item()) and relative_error(changed, gradient) < 1e-6


def test_a_row_in_blocks(kernels, monkeypatch):
    """The running maximum rises, and falls behind, from block to block."""
    monkeypatch.setattr(kernels, "TILE_NUMBERS", 16)
    logits, targets = numbers(6, 70), targets_below(70, 6)
    logits += torch.linspace(-60, 60, 70) * torch.tensor([1, -1, 0, 1, -1, 0])[:, None]
    wanted, gradient = gradient_in_place(logits.clone(), targets, 1e-2)
    found, changed = kernels.gradient_by_kernel(logits, targets, 1e-2)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5) and relative_error(changed, gradient) < 1e-5


def test_half_precision_logits_become_half_precision_gradients(kernels):
    logits, targets = (4 * numbers(9, 65)).half(), targets_below(65, 9)
    wanted, gradient = gradient_in_place(logits.clone(), targets, 1e-2)
    found, changed = kernels.gradient_by_kernel(logits, targets, 1e-2)
    assert changed.dtype == torch.float16 and found.dtype == torch.float32
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5) and relative_error(changed, gradient) < 1e-3


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_head_loss_in_chunks(kernels, monkeypatch, z_loss):
    hidden, weight, targets = numbers(50, 16), numbers(30, 16, seed=5), targets_below(30, 50, ignore=7)
    monkeypatch.setattr(loss, "CHUNK_BYTES", 4 * 30 * 12)  # chunks of 12 rows, the last of 2
    forms = [lambda h, w, f=f: f(h, w, targets, z_loss) for f in (kernels.head_loss_by_kernel, head_loss)]
    forward, backward = errors(*forms, hidden, weight)
    assert forward < 1e-6 and backward < 1e-5
    with torch.no_grad():  # an evaluation writes no gradient
        assert relative_error(*(form(hidden, weight) for form in forms)) < 1e-6
    all_ignored = torch.full_like(targets, -100)
    assert kernels.head_loss_by_kernel(hidden, weight, all_ignored, z_loss).item() == 0
    assert kernels.head_loss_by_kernel(hidden[:0], weight, targets[:0], z_loss).item() == 0


def test_a_frozen_head(kernels):
    hidden, weight, targets = numbers(5, 8).requires_grad_(), numbers(30, 8, seed=5), targets_below(30, 5)
    kernels.head_loss_by_kernel(hidden, weight, targets).backward()
    own = hidden.detach().clone().requires_grad_()
    head_loss(own, weight, targets).backward()
    assert relative_error(hidden.grad, own.grad) < 1e-6 and weight.grad is None


@pytest.mark.parametrize("target", [30, 2**40, -1])
def test_an_unknown_target_is_no_number(kernels, target):
    """And reads nothing that lies outside of the logits."""
    losses = kernels.cross_entropy_(numbers(2, 30), torch.tensor([1, target]), 0.0, True)
    assert losses[0].isfinite() and losses[1].isnan()


def test_operators_of_torch(kernels):
    torch.library.opcheck(kernels.cross_entropy_, (numbers(3, 9), targets_below(9, 3), 1e-2, True))


@pytest.mark.parametrize(
    "right, wrong",
    [
        ("* V + target, mask", "* V + target - 1, mask"),  # the target off by one
        ("(columns == target[:, None]) &", "(columns == target[:, None] + 1) &"),
        ("tl.where(counted, losses, 0.0)", "losses"),  # ignored rows count in the loss
        ("tl.where(counted, 1.0 + 2.0 * z_loss * lse, 0.0)", "(1.0 + 2.0 * z_loss * lse)"),  # and in the gradient
        ("1.0 + 2.0 * z_loss", "1.0 + z_loss"),
        ("total * tl.exp(top - higher)", "total"),  # the running sum is not rescaled
        (' & (columns < V), other=float("-inf")', " & (columns < V), other=0.0"),  # padding counts as logits
    ],
)
def test_a_planted_fault_shows(kernels, monkeypatch, tmp_path, right, wrong):
    monkeypatch.setattr(kernels, "TILE_NUMBERS", 16)
    plant(monkeypatch, tmp_path, kernels, "cross_entropy_kernel", right, wrong)
    hidden, weight, targets = numbers(9, 8), numbers(70, 8, seed=5), targets_below(70, 9)
    forms = [lambda h, w, f=f: f(h, w, targets, 0.05) for f in (kernels.head_loss_by_kernel, head_loss)]
    assert not max(errors(*forms, hidden, weight)) < 1e-3
