"""The fast form of every op equals the plain one, at sizes where its tiles and blocks matter."""

from dataclasses import fields

import numpy as np
import pytest

from helpers.op_references import relative_error
from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.ops.array import ELEMENTS_PER_TILE, row_tiles
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN, Ops

NAMES = [field.name for field in fields(Ops)]


def inputs(name, rng, dtype):
    """Arguments of the op's forward, with more numbers than one tile holds."""

    def normal(*shape):
        return rng.standard_normal(shape).astype(dtype)

    B, T, D = 3, 131, 211  # B * T * D > ELEMENTS_PER_TILE
    if name == "embedding":
        return rng.integers(0, 97, (B, T)), normal(97, D)
    if name == "linear":
        return normal(B, T, D), normal(64, D)
    if name == "rmsnorm":
        return normal(B, T, D), normal(D), 1e-5
    if name == "swiglu":
        return 4 * normal(B, T, D), normal(B, T, D)
    if name == "rope":
        angles = rng.uniform(-9, 9, (T, 8))
        heads = normal(B, T, 5, 16).transpose(0, 2, 1, 3)  # a view, as the model passes it
        return heads, np.cos(angles).astype(dtype), np.sin(angles).astype(dtype)
    if name == "attention":
        q, k, v = (normal(B, T, heads, 16).transpose(0, 2, 1, 3) for heads in (6, 2, 2))
        return q, k, v, causal_mask(T)
    assert name == "cross_entropy"
    targets = rng.integers(0, 4 * D, (B, T))
    targets[0, ::3] = -100
    return 3 * normal(B, T, 4 * D), targets, -100, 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 3e-6)])
@pytest.mark.parametrize("name", NAMES)
def test_fast_equals_plain(name, dtype, tolerance):
    plain, fast = getattr(PLAIN, name), getattr(FAST, name)
    arguments = inputs(name, np.random.default_rng(3), dtype)
    (y, cache), (y_fast, cache_fast) = plain.forward(*arguments), fast.forward(*arguments)
    assert relative_error(y_fast, y) < tolerance
    dy = np.random.default_rng(4).standard_normal(np.shape(y)).astype(dtype) if np.shape(y) else 0.7
    grads, grads_fast = plain.backward(dy, cache), fast.backward(dy, cache_fast)
    grads, grads_fast = (g if isinstance(g, tuple) else (g,) for g in (grads, grads_fast))
    for number, (a, b) in enumerate(zip(grads_fast, grads, strict=True)):
        assert a.dtype == dtype
        assert relative_error(a, b) < tolerance, (name, number)


@pytest.mark.parametrize("shape", [(1, 1), (1, 3 * ELEMENTS_PER_TILE), (7, ELEMENTS_PER_TILE), (1000, 300), (0, 5)])
def test_tiles_cover_every_row_once(shape):
    seen = np.zeros(shape[0], int)
    for rows in row_tiles(*shape):
        seen[rows] += 1
        assert (rows.stop - rows.start) * shape[1] <= max(ELEMENTS_PER_TILE, shape[1])
    assert (seen == 1).all()


def test_fast_forms_do_not_warn_about_large_gates():
    gate = np.array([[-1e4, -100.0, 0.0, 100.0, 1e4]], np.float32)
    with np.errstate(all="raise", under="ignore"):
        y, cache = FAST.swiglu.forward(gate, np.ones_like(gate))
        dgate, _ = FAST.swiglu.backward(np.ones_like(gate), cache)
    np.testing.assert_allclose(y, np.maximum(gate, 0), atol=1e-30)
    np.testing.assert_allclose(dgate, [[0, 0, 0.5, 1, 1]], atol=1e-30)
