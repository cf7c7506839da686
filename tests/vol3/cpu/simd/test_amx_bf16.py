"""AMX tiles of bfloat16 against NumPy, where the CPU has them."""

import ml_dtypes
import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.isa import selected_isa
from nano_llama.vol3_engine.cpu.simd import amx, amx_bf16

pytestmark = pytest.mark.skipif(selected_isa() != "amx", reason="no AMX, or another instruction set was selected")


@njit
def multiply(x, n, k, w, line, out, row, column):
    amx.configure_tiles(amx_bf16.BF16_TILES)
    amx_bf16.load_tile(0, out, row, column)
    amx_bf16.load_tile(5, x, n, k)
    amx_bf16.load_tile(7, w, line, 0)
    amx_bf16.multiply_tiles(0, 5, 7)
    amx_bf16.store_tile(0, out, row, column)
    amx_bf16.clear_tile(0)
    amx_bf16.store_tile(0, out, row + 16, column)
    amx.release_tiles()


def test_a_product_is_accumulated_in_place():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 96)).astype(ml_dtypes.bfloat16)
    w = rng.normal(size=(32, 16)).astype(ml_dtypes.bfloat16)  # 32 columns of 16 rows
    lines = np.zeros((20, 32), np.uint16)
    lines[3:19] = w.reshape(16, 2, 16).transpose(0, 2, 1).reshape(16, 32).view(np.uint16)
    out = rng.normal(size=(40, 48)).astype(np.float32)
    before = out.copy()
    multiply(x.view(np.uint16), 8, 64, lines, 3, out, 2, 16)
    product = x[8:24, 64:].astype(np.float64) @ w.astype(np.float64)
    np.testing.assert_allclose(out[2:18, 16:32] - before[2:18, 16:32], product, atol=1e-5)
    assert not out[18:34, 16:32].any()
    before[2:34, 16:32] = out[2:34, 16:32]
    np.testing.assert_array_equal(out, before, err_msg="another place was written")
