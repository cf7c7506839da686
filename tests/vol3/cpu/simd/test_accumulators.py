"""Accumulators against NumPy."""

import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.simd import accumulators, intrinsics


@njit
def one(sums, a, v, out):
    sums = accumulators.fma_rows(sums, intrinsics.load(v, 0), a, 1, 2)
    sums = accumulators.fma_rows(sums, intrinsics.load(v, 16), a, 1, 3)
    accumulators.store_rows(out, 2, 16, sums)
    return accumulators.num_rows(sums)


@njit
def add_one(a, v, out):
    return one(accumulators.zeros(1), a, v, out)


@njit
def add_three(a, v, out):
    return one(accumulators.zeros(3), a, v, out)


@njit
def copy_three(a, out):
    accumulators.store_rows(out, 2, 16, accumulators.load_rows(accumulators.zeros(3), a, 1, 4))


@pytest.mark.parametrize(("rows", "add"), [(1, add_one), (3, add_three)])
def test_fma_rows(rows, add):
    rng = np.random.default_rng(0)
    a, v = rng.normal(size=(5, 24)).astype(np.float32), rng.normal(size=32).astype(np.float32)
    out = np.zeros((6, 40), np.float32)
    assert add(a, v, out) == rows
    product = a[1 : 1 + rows, 2:4].astype(np.float64) @ v.reshape(2, 16)
    np.testing.assert_allclose(out[2 : 2 + rows, 16:32], product, rtol=1e-5, atol=1e-6)
    out[2 : 2 + rows, 16:32] = 0
    assert not out.any(), "another place was written"


def test_load_and_store_rows():
    a, out = np.arange(120, dtype=np.float32).reshape(5, 24), np.zeros((6, 40), np.float32)
    copy_three(a, out)
    np.testing.assert_array_equal(out[2:5, 16:32], a[1:4, 4:20])
    assert np.count_nonzero(out) == 48
