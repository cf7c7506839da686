"""Norm, SwiGLU, rotation and cache writes against their references and the core's formulas."""

import numpy as np
import pytest

from helpers.matrices import make_matrix
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.activations import BFLOATS, BYTES, FLOATS, activations
from nano_llama.vol3_engine.cpu.kernels.embed import embed_row
from nano_llama.vol3_engine.cpu.kernels.kinds import KERNEL_KINDS
from nano_llama.vol3_engine.cpu.kernels.kv_cache import (
    DTYPES,
    keys_plain,
    kv_cache,
    run_index,
    values_plain,
    write_key,
    write_value,
)
from nano_llama.vol3_engine.cpu.kernels.norm import rmsnorm, rmsnorm_plain
from nano_llama.vol3_engine.cpu.kernels.rope import rotate_head, rotate_plain
from nano_llama.vol3_engine.cpu.kernels.swiglu import interleaved_rows, swiglu, swiglu_plain

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def from_bfloats(x):
    return (x.bfloats.astype(np.uint32) << 16).view(np.float32)


def dequantized(x):
    return x.quantized * np.repeat(x.scales.transpose(0, 2, 1).reshape(len(x.quantized), -1), 32, axis=1)


@pytest.mark.parametrize("size", [32, 40, 576])
def test_rmsnorm_in_every_form(size):
    out, padded = activations(4, size), -(-size // 32) * 32
    x, weight = np.zeros((4, padded), np.float32), np.zeros(padded, np.float32)
    x[:, :size], weight[:size] = normal(4, size), normal(size)
    rmsnorm(x, 2, weight, size, 1e-5, out, FLOATS + BYTES + BFLOATS)
    meant = rmsnorm_plain(x[2:3, :size], weight[:size], 1e-5)[0]
    np.testing.assert_allclose(out.values[2, :size], meant, rtol=1e-5, atol=1e-6)
    assert not out.values[2, size:].any() and not out.values[:2].any() and not out.values[3:].any()
    assert np.abs(dequantized(out)[2, :size] - meant).max() <= 0.51 * out.scales.max()
    assert np.all(np.abs(from_bfloats(out) - out.values) <= 2**-8 * np.abs(out.values))


def test_swiglu_of_interleaved_gate_and_up():
    gate, up, out = normal(3, 40), normal(3, 40), activations(3, 64)
    order = interleaved_rows(40)
    both = np.where(order < 0, 0, np.concatenate([gate, up], axis=1)[:, order])  # what the packed matrix gives
    both = np.ascontiguousarray(both)
    assert both.shape == (3, 128)
    swiglu(both, 1, 0, 2, out, FLOATS + BYTES + BFLOATS)
    meant = swiglu_plain(gate[1], up[1])
    np.testing.assert_allclose(out.values[1, :40], meant, rtol=2e-6, atol=1e-7)
    assert not out.values[1, 40:].any() and not out.values[0].any()
    assert np.abs(dequantized(out)[1, :40] - meant).max() <= 0.51 * out.scales.max()
    swiglu(np.ascontiguousarray(both[:, 64:]), 2, 1, 2, out, FLOATS)  # a buffer that begins with group 1
    np.testing.assert_allclose(out.values[2, 32:40], swiglu_plain(gate[2], up[2])[32:], rtol=2e-6, atol=1e-7)
    assert not out.values[2, :32].any() and not out.quantized[2].any(), "no other group or form is written"


@pytest.mark.parametrize("head_dim", [8, 32, 80, 128])
def test_a_head_is_rotated_in_place(head_dim):
    width = -(-head_dim // 16) * 16
    x, angles = normal(2, 3 * width), normal(2, head_dim // 2)
    cos, sin, before = np.cos(angles), np.sin(angles), x.copy()
    rotate_head(x, 1, width, head_dim, cos, sin)
    own = slice(width, width + head_dim)
    np.testing.assert_allclose(x[1, own], rotate_plain(before[1:, own], cos[1:], sin[1:])[0], rtol=1e-6, atol=1e-6)
    x[1, own] = before[1, own]
    np.testing.assert_array_equal(x, before, err_msg="another head was touched")


@pytest.mark.parametrize(("dtype", "step"), [("float32", 0), ("bfloat16", 2**-8), ("int8", 0.51 / 127)])
def test_keys_and_values_are_written_to_their_slot(dtype, step):
    cache, narrow = kv_cache(2, 3, 4, 40, dtype), np.zeros(48, DTYPES[dtype])
    x = np.zeros((2, 3 * 48), np.float32)
    for head in range(3):
        x[:, 48 * head : 48 * head + 40] = normal(2, 40)
    for head in range(3):
        write_key(cache, 1, head, 2, 5, x, 1, 48 * head, narrow)
        write_value(cache, 1, head, 2, 5, x, 1, 48 * head, narrow)
        for found in (keys_plain(cache, 1, head, [2]), values_plain(cache, 1, head, [2])):
            meant = x[1, 48 * head : 48 * head + 48]
            assert np.abs(found[5] - meant).max() <= step * np.abs(meant).max()
            assert not np.delete(found, 5, axis=0).any(), "another position was written"
    runs = [run_index.py_func(cache, 1, head, 2) for head in range(3)]
    cache.keys[runs], cache.values[runs] = 0, 0
    assert not cache.keys.any() and not cache.values.any(), "another block or layer was written"


@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_an_embedding_is_a_row_of_the_matrix(kind):
    matrix, _ = make_matrix(kind, 40, 96)
    x, meant = np.zeros((2, 128), np.float32), pack.unpack(matrix)
    for row in (0, 15, 16, 39):
        embed_row(matrix, row, x, 1)
        np.testing.assert_allclose(x[1, :96], meant[row], rtol=1e-6, atol=1e-9)
    assert not x[0].any() and not x[1, 96:].any()
