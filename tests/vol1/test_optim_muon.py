"""Muon against torch's with its bfloat16 made exact; the iteration against the SVD; the split of the parameters."""

import numpy as np
import pytest

from nano_llama.vol1_numpy.optim import AdamW, Muon
from nano_llama.vol1_numpy.optim.muon import orthogonalize

WIDE, TALL, EMBED, NORM = (
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.embed_tokens.weight",
    "model.norm.weight",
)
SHAPES = {WIDE: (6, 10), TALL: (12, 5), EMBED: (20, 6), NORM: (6,)}


def draw(seed):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape) for name, shape in SHAPES.items()}


def test_twelve_steps_equal_torch(monkeypatch):
    """torch iterates in bfloat16, three digits: for the comparison its cast is made the identity."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    params = draw(0)
    copies = {name: torch.nn.Parameter(torch.tensor(params[name])) for name in (WIDE, TALL)}
    optimizer = Muon(params, 0.02, momentum=0.9, weight_decay=0.1)
    reference = torch.optim.Muon(
        copies.values(), lr=0.02, momentum=0.9, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    for step in range(12):
        grads = draw(step + 1)
        optimizer.step(params, grads)
        for name, copy in copies.items():
            copy.grad = torch.tensor(grads[name])
        reference.step()
    for name, copy in copies.items():
        np.testing.assert_allclose(params[name], copy.detach().numpy(), rtol=1e-6, atol=1e-9, err_msg=name)


def test_embedding_and_norms_are_updated_by_adamw():
    params, alone = draw(0), {name: value for name, value in draw(0).items() if name in (EMBED, NORM)}
    optimizer = Muon(params, 0.02, weight_decay=0.1)
    adamw = AdamW(alone, 0.02, betas=(0.9, 0.95), weight_decay=0.1)
    for step in range(10):
        optimizer.step(params, draw(step + 1), lr=0.01)
        adamw.step(alone, draw(step + 1), lr=0.01)
    for name in alone:
        np.testing.assert_array_equal(params[name], alone[name])


@pytest.mark.parametrize("shape", [(8, 8), (5, 30), (30, 5), (1, 9)])
def test_orthogonalize_keeps_the_singular_vectors(shape):
    matrix = np.random.default_rng(2).standard_normal(shape)
    p, _, q = np.linalg.svd(matrix, full_matrices=False)
    inside = p.T @ orthogonalize(matrix) @ q.T
    values = np.diag(inside)
    assert np.abs(inside - np.diag(values)).max() < 1e-6
    assert values.min() > 0.6 and values.max() < 1.25


def test_a_zero_gradient_moves_nothing():
    params = draw(0)
    optimizer = Muon(params, 0.02)
    before = params[WIDE].copy()
    optimizer.step(params, {name: np.zeros_like(value) for name, value in params.items()})
    np.testing.assert_array_equal(params[WIDE], before)


def test_five_iterations_bring_singular_values_near_one():
    """The docstring's claim, on a diagonal matrix whose normalized singular values run from 0.002 to nearly 1."""
    values = np.concatenate([[1.0], np.geomspace(0.0021, 0.05, 60)])
    found = np.diag(orthogonalize(np.diag(values / np.linalg.norm(values))))
    assert values[1] / np.linalg.norm(values) > 0.002
    assert found.min() > 0.68 and found.max() < 1.21
