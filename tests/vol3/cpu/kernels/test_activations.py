"""Activations as int8 in groups of 32: equal to the reference, and within half a step of the floats."""

import numpy as np

from nano_llama.vol3_engine.cpu.kernels.activations import BYTES, activations, convert_row, quantize_plain


def quantize(x, first, last):
    for n in range(first, last):
        convert_row(x, n, BYTES)


def test_bytes_and_scales_equal_the_plain_twin():
    x = activations(19, 96)
    assert x.values.shape == (32, 128)
    x.values[:19, :96] = np.random.default_rng(0).normal(size=(19, 96)) * np.logspace(-6, 6, 19)[:, None]
    x.values[3, 32:64] = 0.0
    quantize(x, 0, 19)
    q, s = quantize_plain(x.values[:19])
    np.testing.assert_array_equal(x.quantized[:19], q)
    flat = [a.transpose(0, 2, 1).reshape(32, -1)[:19] for a in (x.scales, x.sums, x.minima)]
    np.testing.assert_array_equal(flat[0], s)
    np.testing.assert_array_equal(flat[1], q.reshape(19, 4, 32).astype(np.int32).sum(-1))
    np.testing.assert_array_equal(flat[2], flat[0] * flat[1].astype(np.float32))


def test_a_float_is_within_half_a_step():
    x = activations(16, 64)
    x.values[:] = np.random.default_rng(1).normal(size=x.values.shape)
    quantize(x, 0, 16)
    scales = np.repeat(x.scales.transpose(0, 2, 1).reshape(16, -1), 32, axis=1)
    assert np.all(np.abs(x.quantized * scales - x.values) <= 0.5001 * scales)


def test_other_rows_are_not_written():
    x = activations(16, 64)
    x.values[:] = 1.0
    quantize(x, 2, 5)
    assert not x.quantized[:2].any() and not x.quantized[5:].any()
    assert (x.quantized[2:5] == 127).all()
