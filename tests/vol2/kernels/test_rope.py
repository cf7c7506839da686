"""RoPE's kernel beside Volume 1's rotation, its reference and torch's checks of operators."""

import numpy as np
import pytest
import torch

from helpers.kernels import errors, numbers, plant, relative_error
from nano_llama.vol1_numpy.ops.rope import rope_backward, rope_forward

pytestmark = pytest.mark.triton


@pytest.fixture
def kernels(interpreter, monkeypatch):
    from nano_llama.vol2_torch.kernels import rope, tiles

    monkeypatch.setattr(tiles, "INTERPRETED_TILE", 256)  # many programs, the last of which is not full
    return rope


def angles(*shape):
    angle = 3 * numbers(*shape, seed=9)
    return angle.cos(), angle.sin()


def heads(B, H, T, K, seed=0, dtype=torch.float32):
    """(B,H,T,K) as a projection leaves it: a view of (B,T,H*K)."""
    return numbers(B, T, H * K, seed=seed, dtype=dtype).unflatten(-1, (H, K)).transpose(1, 2)


@pytest.mark.parametrize("B, H, G, T, K", [(1, 1, 1, 1, 2), (2, 6, 2, 5, 24), (1, 4, 4, 17, 64), (3, 2, 1, 9, 80)])
@pytest.mark.parametrize("own_positions", [False, True])
def test_it_equals_its_reference(kernels, B, H, G, T, K, own_positions):
    q, k, table = heads(B, H, T, K), heads(B, G, T, K, 5), angles(*((B, 1) if own_positions else ()), T, K // 2)
    found = errors(lambda *t: kernels.rope(*t, *table), lambda *t: kernels.rope_reference(*t, *table), q, k)
    assert max(found) < 1e-6


def test_it_is_volume_ones_rotation_and_its_way_back(kernels):
    q, k, (cos, sin) = heads(2, 6, 5, 24), heads(2, 2, 5, 24, 5), angles(5, 12)
    dq, dk = heads(2, 6, 5, 24, 6), heads(2, 2, 5, 24, 7)
    own = [t.clone().requires_grad_() for t in (q, k)]
    rotated = kernels.rope(*own, cos, sin)
    back = torch.autograd.grad(rotated, own, (dq, dk))
    for x, y, dy, dx in zip((q, k), rotated, (dq, dk), back, strict=True):
        wanted, cache = rope_forward(*(t.numpy().astype(np.float64) for t in (x, cos, sin)))
        assert relative_error(y, torch.from_numpy(wanted)) < 1e-6
        assert relative_error(dx, torch.from_numpy(rope_backward(dy.numpy().astype(np.float64), cache))) < 1e-6


def test_gradcheck_in_float64(kernels):
    own = heads(1, 2, 2, 4, dtype=torch.float64).requires_grad_(), heads(1, 1, 2, 4, 5, torch.float64).requires_grad_()
    table = [t.double() for t in angles(2, 2)]
    assert torch.autograd.gradcheck(lambda q, k: kernels.rope(q, k, *table), own, fast_mode=True)


def test_half_precision_is_rounded_once(kernels):
    q, k, table = heads(1, 2, 5, 16, dtype=torch.float16), heads(1, 1, 5, 16, 5, torch.float16), angles(5, 8)
    for found, wanted in zip(kernels.rope(q, k, *table), kernels.rope_reference(q, k, *table), strict=True):
        assert torch.equal(found, wanted)


def test_in_place(kernels):
    q, k, table = heads(2, 6, 5, 24), heads(2, 2, 5, 24, 5), angles(5, 12)
    wanted = kernels.rope(q, k, *table)
    kernels.rope_(q, k, *table)
    assert torch.equal(q, wanted[0]) and torch.equal(k, wanted[1])


def test_any_layout_of_the_inputs(kernels):
    """Keys of another layout than queries; one head for all texts; a slice of a longer tensor."""
    q, k = numbers(2, 3, 5, 8), numbers(1, 1, 5, 8, seed=5).expand(2, 1, 5, 8)
    table = angles(5, 4)
    rotate, plain = (lambda *t, f=f: f(*t, *table) for f in (kernels.rope, kernels.rope_reference))
    assert max(errors(rotate, plain, q, k)) < 1e-6
    for found, wanted in zip(rotate(q[..., ::1], k), plain(q, k), strict=True):
        assert relative_error(found, wanted) < 1e-6
    wide = numbers(2, 3, 9, 8, seed=6)
    for found, wanted in zip(rotate(wide[:, :, 2:7], k), plain(wide[:, :, 2:7], k), strict=True):
        assert relative_error(found, wanted) < 1e-6


def test_operators_of_torch(kernels):
    q, k, table = heads(1, 2, 3, 4).requires_grad_(), heads(1, 1, 3, 4, 5).requires_grad_(), angles(3, 2)
    torch.library.opcheck(kernels._rope, (q, k, *table, 1.0))
    torch.library.opcheck(kernels._rope_in_place, (q.detach().clone(), k.detach().clone(), *table))


@pytest.mark.parametrize(
    "kernel, right, wrong",
    [
        ("rope_kernel", "* sign", "* 1.0"),  # the way back turns on in the same direction
        (
            "rope_kernel",
            "text * angle_text + position * half",
            "position * half",
        ),  # every text has the first's positions
        ("rope_kernel", "rotate_head(K, K_OUT, k_at + g * k_head", "rotate_head(K, K_OUT, k_at"),
        ("rotate_head", "second * cos + first * sin", "second * cos - first * sin"),
    ],
)
def test_a_planted_fault_shows(kernels, monkeypatch, tmp_path, kernel, right, wrong):
    q, k, table = heads(2, 6, 5, 24), heads(2, 2, 5, 24, 5), angles(2, 1, 5, 12)
    plant(monkeypatch, tmp_path, kernels, kernel, right, wrong)
    if kernel == "rotate_head":  # which the other kernel calls by its name
        plant(monkeypatch, tmp_path, kernels, "rope_kernel", "q_at + h", "q_at + 1 * h")
    found = errors(lambda *t: kernels.rope(*t, *table), lambda *t: kernels.rope_reference(*t, *table), q, k)
    assert max(found) > 1e-3
