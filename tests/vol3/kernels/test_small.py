"""Norm, SwiGLU, rotation and cache writes against their plain twins and the core's formulas."""

import ml_dtypes
import numpy as np
import pytest

from nano_llama.core.config import LlamaConfig
from nano_llama.core.rope import rope_tables
from nano_llama.vol3_engine.kernels.activations import activations
from nano_llama.vol3_engine.kernels.norm import rmsnorm, rmsnorm_plain
from nano_llama.vol3_engine.kernels.rope import write_token
from nano_llama.vol3_engine.kernels.swiglu import in_turns, swiglu, swiglu_plain

rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


def dequantized(x):
    return x.quantized * np.repeat(x.scales.transpose(0, 2, 1).reshape(len(x.quantized), -1), 32, axis=1)


@pytest.mark.parametrize("size", [32, 40, 576])
def test_rmsnorm_gives_floats_and_bytes_of_one_row(size):
    out, padded = activations(4, size), -(-size // 32) * 32
    x, weight = np.zeros((4, padded), np.float32), np.zeros(padded, np.float32)
    x[:, :size], weight[:size] = normal(4, size), normal(size)
    rmsnorm(x, weight, size, 1e-5, 2, out, True, True)
    meant = rmsnorm_plain(x[2:3, :size], weight[:size], 1e-5)[0]
    np.testing.assert_allclose(out.values[2, :size], meant, rtol=1e-5, atol=1e-6)
    assert not out.values[2, size:].any() and not out.values[:2].any() and not out.values[3:].any()
    assert np.abs(dequantized(out)[2, :size] - meant).max() <= 0.51 * out.scales.max()


def test_swiglu_reads_gate_and_up_in_turns():
    gate, up, out = normal(3, 40), normal(3, 40), activations(3, 64)
    both = np.ascontiguousarray(in_turns(gate.T, up.T).T)  # what the packed product would give: (N, 2F + padding)
    assert both.shape == (3, 128)
    swiglu(both, 1, 0, 2, out, True, True)
    meant = swiglu_plain(gate[1], up[1])
    np.testing.assert_allclose(out.values[1, :40], meant, rtol=2e-6, atol=1e-7)
    assert not out.values[1, 40:].any() and not out.values[0].any()
    assert np.abs(dequantized(out)[1, :40] - meant).max() <= 0.51 * out.scales.max()


@pytest.mark.parametrize("dtype", [np.float32, np.uint16, np.int8], ids=["float32", "bfloat16", "int8"])
@pytest.mark.parametrize(("H", "G", "K"), [(6, 2, 32), (3, 3, 8), (4, 1, 80)])
def test_a_token_is_rotated_and_written_where_the_table_says(dtype, H, G, K):
    config = LlamaConfig(
        vocab_size=8, hidden_size=H * K, num_hidden_layers=2, num_attention_heads=H, num_key_value_heads=G,
        head_dim=K, intermediate_size=8, max_position_embeddings=64,
    )  # fmt: skip
    cos, sin = rope_tables(config, np.arange(64), np.float32)
    width, position, block = -(-K // 32) * 32, 37, 5
    qkv, queries, head = normal(2, (H + 2 * G) * K), np.zeros((2, H, width), np.float32), np.zeros(width, np.float32)
    keys, values = (np.zeros((2, 8, G, 16 * width), dtype) for _ in range(2))
    scales = np.zeros((2, 8, G, 32), np.float32)
    write_token(qkv, 1, position, cos, sin, H, G, K, queries, keys, values, scales, 1, block, 0, H + 2 * G, head)

    heads = qkv[1].reshape(-1, K)
    a, b = heads[: H + G, : K // 2], heads[: H + G, K // 2 :]
    c, s = cos[position], sin[position]
    turned = np.concatenate([a * c - b * s, b * c + a * s], axis=1)
    np.testing.assert_allclose(queries[1, :, :K], turned[:H] / np.sqrt(np.float32(K)), rtol=1e-6, atol=1e-7)

    place = position % 16
    if dtype is np.uint16:
        key = keys.view(ml_dtypes.bfloat16).reshape(2, 8, G, width // 2, 16, 2)[1, block, :, :, place]
        value = values.view(ml_dtypes.bfloat16).reshape(2, 8, G, 8, width, 2)[1, block, :, place // 2, :, place % 2]
        key = key.reshape(G, width)
    else:
        key = keys.reshape(2, 8, G, width, 16)[1, block, :, :, place]
        value = values.reshape(2, 8, G, 16, width)[1, block, :, place]
    key, value = key.astype(np.float32), value.astype(np.float32)
    if dtype is np.int8:
        key, value = key * scales[1, block, :, place, None], value * scales[1, block, :, 16 + place, None]
    for found, meant in ((key, turned[H:]), (value, heads[H + G :])):
        step = {np.float32: 1e-6, np.uint16: 2**-8, np.int8: 0.51 / 127}[dtype]
        assert np.abs(found[:, :K] - meant).max() <= step * np.abs(meant).max()
        assert not found[:, K:].any()
    keys[1, block], values[1, block] = 0, 0
    assert not keys.any() and not values.any(), "another block or layer was written"
