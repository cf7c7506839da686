"""AMX tiles of int8 against NumPy's integers, where the CPU has them."""

import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.isa import selected_isa
from nano_llama.vol3_engine.cpu.simd import amx, intrinsics

pytestmark = pytest.mark.skipif(selected_isa() != "amx", reason="no AMX, or another instruction set was selected")


@njit
def multiply(x, n, k, w, at, ring, d, scales, minima, out):
    amx.configure_tiles(amx.INT8_TILES)
    amx.tile_product(x, n, k, w, at, ring, 1)
    amx.release_tiles()
    column = intrinsics.load(d, 0)
    totals = amx.add_scaled_product(amx.zero_tile_sums(), ring, 1, column, scales, 0, 0)
    amx.store_tile_sums(out, 0, amx.add_minima(totals, column, minima, 0, 0))


def test_a_product_with_scales_and_minima():
    rng = np.random.default_rng(0)
    x = rng.integers(-128, 128, (40, 96)).astype(np.int8)
    w = rng.integers(-128, 128, (16, 32)).astype(np.int8)
    stored = np.concatenate([np.zeros(64, np.int8), w.reshape(16, 8, 4).transpose(1, 0, 2).ravel()]).view(np.uint8)
    ring, out = np.zeros((2, 256), np.int32), np.zeros((1, 256), np.float32)
    d = rng.normal(size=16).astype(np.float32)
    scales, minima = (rng.normal(size=(1, 1, 16)).astype(np.float32) for _ in range(2))
    multiply(x, 8, 64, stored, 64, ring, d, scales, minima, out)
    sums = x[8:24, 64:96].astype(np.int64) @ w.T.astype(np.int64)  # (tokens, rows)
    np.testing.assert_array_equal(ring[1].reshape(16, 16), sums)
    meant = sums * (d * scales[0, 0, :, None]).astype(np.float64) + d.astype(np.float64) * minima[0, 0, :, None]
    np.testing.assert_allclose(out[0].reshape(16, 16), meant, rtol=1e-5, atol=1e-3)
