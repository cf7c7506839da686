"""Each intrinsic of intrinsics.py and int8_dot.py against its line of NumPy, for the selected instruction set."""

import ml_dtypes
import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.simd import int8_dot
from nano_llama.vol3_engine.cpu.simd import intrinsics as simd

rng = np.random.default_rng(0)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32) * 4


def compiled(expression):
    """A compiled function that stores `expression` of the vectors x and y (F32x16) into out[0:16]."""
    scope = {name: getattr(simd, name) for name in dir(simd)} | {"np": np}
    exec(f"def kernel(a, b, out):\n    x, y = load(a, 0), load(b, 0)\n    store(out, 0, {expression})", scope)
    return njit(scope["kernel"])


@pytest.mark.parametrize(
    ("expression", "twin"),
    [
        ("x + y", lambda x, y: x + y),
        ("x - y", lambda x, y: x - y),
        ("x * y", lambda x, y: x * y),
        ("x / y", lambda x, y: x / y),
        ("maximum(x, y)", np.maximum),
        ("absolute(x)", lambda x, y: np.abs(x)),
        ("to_float(round_to_int32(x))", lambda x, y: np.rint(x)),
        ("to_float(splat(7) - splat(9))", lambda x, y: np.full(16, -2.0)),
        ("splat(reduce_max(x))", lambda x, y: np.full(16, x.max())),
        ("splat(extract_lane(x, 3))", lambda x, y: np.full(16, x[3])),
        ("splat(np.float32(reduce_add_i32(round_to_int32(x))))", lambda x, y: np.full(16, np.rint(x).sum())),
        ("select_first(x, 5, np.float32(-1e30))", lambda x, y: np.where(np.arange(16) < 5, x, np.float32(-1e30))),
    ],
)
def test_an_intrinsic_equals_its_line_of_numpy(expression, twin):
    x, y, out = floats(16), floats(16), np.zeros(16, np.float32)
    x[:2] = 0.5, -2.5  # ties
    compiled(expression)(x, y, out)
    np.testing.assert_array_equal(out, twin(x, y).astype(np.float32))


def test_fma_rounds_once():
    x, y, out = floats(16), floats(16), np.zeros(16, np.float32)
    compiled("fma(x, y, x)")(x, y, out)
    exact = x.astype(np.float64) * y + x  # products of floats are exact in float64
    np.testing.assert_array_equal(out, exact.astype(np.float32))


def test_exp_is_within_two_units_in_the_last_place_and_clips():
    out = np.zeros(16, np.float32)
    kernel = compiled("exp(x)")
    for start in np.linspace(-86, 86, 200):
        x = (start + np.linspace(0, 1, 16)).astype(np.float32)
        kernel(x, x, out)
        np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=2.5e-7)
    kernel(np.full(16, -1e30, np.float32), out.copy(), out)
    assert np.all(out < 2e-38)


def test_exp_approx_is_within_its_bound_and_clips():
    out = np.zeros(16, np.float32)
    kernel = compiled("exp_approx(x)")
    for start in np.linspace(-86, -1, 200):
        x = (start + np.linspace(0, 1, 16)).astype(np.float32)
        kernel(x, x, out)
        np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=2**-13)
    kernel(np.full(16, -1e30, np.float32), out.copy(), out)
    assert np.all((out >= 0) & (out < 2e-38))


def test_reduce_add_is_a_fixed_tree():
    x, out = floats(16), np.zeros(16, np.float32)
    compiled("splat(reduce_add(x))")(x, x, out)
    tree = x
    while len(tree) > 1:
        tree = tree[: len(tree) // 2] + tree[len(tree) // 2 :]
    assert out[0] == tree[0]


@njit
def take_dot(acc, u, x, out):
    simd.store(out, 0, int8_dot.dot(simd.load_i32(acc, 0), simd.load_bytes(u, 0), simd.load_bytes(x, 0)))


@njit
def take_nibbles(u, low, high, less):
    simd.store(low, 0, int8_dot.low_nibbles(simd.load_bytes(u, 0)))
    simd.store(high, 0, int8_dot.high_nibbles(simd.load_bytes(u, 0)))
    simd.store(less, 0, int8_dot.subtract_byte(simd.load_bytes(u, 0), 8))


def test_dot_is_exact():
    for u, x in (
        (rng.integers(0, 256, 64), rng.integers(-128, 128, 64)),
        (np.full(64, 255), np.full(64, -128)),
        (np.full(64, 255), np.full(64, 127)),
    ):
        acc, out = rng.integers(-1000, 1000, 16).astype(np.int32), np.zeros(16, np.int32)
        take_dot(acc, u.astype(np.uint8), x.astype(np.int8), out)
        np.testing.assert_array_equal(out, acc + (u * x).reshape(16, 4).sum(1))


@njit
def take_dot_signed(acc, w, x, out):
    simd.store(
        out,
        0,
        int8_dot.dot_signed(simd.load_i32(acc, 0), simd.load_bytes(w, 0), simd.load_bytes(x, 0)),
    )


def test_dot_signed_is_exact():
    for u, x in (
        (rng.integers(0, 256, 64), rng.integers(-127, 128, 64)),
        (np.full(64, 0), np.full(64, -127)),
        (np.full(64, 0), np.full(64, 127)),
        (np.full(64, 255), np.full(64, -127)),
    ):
        acc, out = rng.integers(-1000, 1000, 16).astype(np.int32), np.zeros(16, np.int32)
        w = u - 128 if int8_dot.SIGNED_WEIGHTS else u
        take_dot_signed(acc, w.astype(np.int8).view(np.uint8), x.astype(np.int8), out)
        np.testing.assert_array_equal(out, acc + (w * x).reshape(16, 4).sum(1))


@njit
def take_nibble_dots(u, x, out):
    one = other = int8_dot.zero_nibble_sums()
    for quad in range(0, 8, 2):
        one = int8_dot.dot_nibbles(one, simd.load_bytes(u, 64 * quad), simd.load_bytes(x, 64 * quad))
        other = int8_dot.dot_nibbles(other, simd.load_bytes(u, 64 * quad + 64), simd.load_bytes(x, 64 * quad + 64))
    simd.store(out, 0, int8_dot.add_nibble_sums(one, other))


def test_dot_nibbles_is_exact_up_to_eight_times():
    for u, x in (
        (rng.integers(0, 16, 512), rng.integers(-127, 128, 512)),
        (np.full(512, 15), np.full(512, -127)),
        (np.full(512, 15), np.full(512, 127)),
    ):
        out = np.zeros(16, np.int32)
        take_nibble_dots(u.astype(np.uint8), x.astype(np.int8), out)
        np.testing.assert_array_equal(out, (u * x).reshape(8, 16, 4).sum((0, 2)))


@njit
def take_pair(x, start, low, high, bits, pairs):
    simd.store(bits, 0, simd.extract_bits(simd.load_i32(x, 0), start, 15))
    simd.store(pairs, 0, simd.pack_bfloat_pairs(simd.load(low, 0), simd.load(high, 0)))


def test_extract_bits_and_pack_bfloat_pairs():
    rng = np.random.default_rng(4)
    x, bits, pairs = rng.integers(-(2**31), 2**31, 16).astype(np.int32), np.zeros(16, np.int32), np.zeros(16, np.int32)
    low, high = rng.normal(size=(2, 16)).astype(np.float32)
    take_pair(x, 28, low, high, bits, pairs)
    np.testing.assert_array_equal(bits, x.view(np.uint32) >> 28)
    for halves, floats in ((pairs.view(np.uint16)[::2], low), (pairs.view(np.uint16)[1::2], high)):
        np.testing.assert_array_equal(halves, floats.astype(ml_dtypes.bfloat16).view(np.uint16))  # there are no ties


def test_nibbles():
    u = rng.integers(0, 256, 64).astype(np.uint8)
    low, high, less = (np.zeros(64, np.uint8) for _ in range(3))
    take_nibbles(u, low, high, less)
    np.testing.assert_array_equal(low, u & 15)
    np.testing.assert_array_equal(high, u >> 4)
    np.testing.assert_array_equal(less, u - np.uint8(8))


@njit
def move(source, row, column, out, how):
    if how == 0:
        simd.store(out, 0, simd.load_half(source, row, column))
    elif how == 1:
        simd.store(out, 0, simd.load_bfloat(source, row, column))
    else:
        simd.store(out, 0, simd.load_int8(source, row, column))


def test_loads_of_narrow_dtypes():
    import ml_dtypes

    values, out = floats(3, 32), np.zeros(16, np.float32)
    for how, kind in enumerate((np.float16, ml_dtypes.bfloat16, np.int8)):
        narrow = values.astype(kind)
        source = narrow if kind is np.int8 else narrow.view(np.uint16)
        move(source, 2, 5, out, how)
        np.testing.assert_array_equal(out, narrow[2, 5:21].astype(np.float32))


@njit
def narrow(x, bfloats, bytes_):
    simd.store_bfloat(bfloats, 0, simd.load(x, 0))
    simd.store_int8(bytes_, 0, simd.round_to_int32(simd.load(x, 0)))


def test_stores_to_narrow_dtypes():
    import ml_dtypes

    x = np.concatenate([floats(15), np.float32([1 + 2**-8])])  # the last: a tie, to even
    bfloats, bytes_ = np.zeros(16, np.uint16), np.zeros(16, np.int8)
    narrow(x, bfloats, bytes_)
    np.testing.assert_array_equal(bfloats, x.astype(ml_dtypes.bfloat16).view(np.uint16))
    np.testing.assert_array_equal(bytes_, np.rint(x).astype(np.int8))


@njit
def read_single(halves, quads, out):
    out[0] = simd.load_one_half(halves, 2)
    simd.store(quads, 0, simd.broadcast_quad(quads, 100))


def test_load_one_half_and_broadcast_quad():
    quads, out = rng.integers(-128, 128, 128).astype(np.int8), np.zeros(1, np.float32)
    four = quads[100:104].copy()
    read_single(np.float16([1.0, 2.0, 0.3]).view(np.uint16), quads, out)
    assert out[0] == np.float32(np.float16(0.3))
    np.testing.assert_array_equal(quads[:64], np.tile(four, 16))
