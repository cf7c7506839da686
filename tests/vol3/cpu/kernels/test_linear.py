"""y = W x: every kind of weights and number of tokens against the reference, and batch invariance."""

import numpy as np
import pytest

from helpers.matrices import make_matrix
from nano_llama.formats.kinds import WRITABLE_BLOCKS
from nano_llama.vol3_engine.cpu.kernels.activations import BFLOATS, BYTES, activations, convert_row
from nano_llama.vol3_engine.cpu.kernels.kinds import KERNEL_KINDS
from nano_llama.vol3_engine.cpu.kernels.linear import form_read, linear, linear_plain, linear_scratch
from nano_llama.vol3_engine.cpu.kernels.pack import unpack

TOKENS = (1, 2, 3, 4, 5, 16, 17, 33)


@pytest.fixture
def problem():
    return lambda *shape: make_problem(*shape)


def make_problem(kind, rows, columns):
    matrix, _ = make_matrix(kind, rows, columns)
    x = activations(max(TOKENS) + 16, columns)  # tiles may look beyond the last
    x.values[:, :columns] = np.random.default_rng(1).normal(size=(len(x.values), columns))
    for n in range(len(x.values)):
        convert_row(x, n, BYTES + BFLOATS)
    return matrix, x


def run(matrix, x, tokens, first=0, last=None, add=False, out=None, decode_rows=None):
    out = np.zeros((len(x.values), 16 * matrix.blocks), np.float32) if out is None else out
    decode_rows, last = (
        whole if part is None else part for part, whole in ((decode_rows, tokens), (last, matrix.blocks))
    )
    linear(matrix, x, decode_rows, tokens, first, last, add, linear_scratch(matrix.columns), out)
    return out


@pytest.mark.parametrize("kind", KERNEL_KINDS)
@pytest.mark.parametrize("shape", [(40, 96), (112, 160), (5, 32)], ids=str)
def test_decode_rows_equal_the_plain_twin_and_are_batch_invariant(kind, shape, problem):
    matrix, x = problem(kind, *shape)
    plain = linear_plain(matrix, x, max(TOKENS))
    most = run(matrix, x, max(TOKENS))
    for tokens in TOKENS:
        out = run(matrix, x, tokens)
        # one rounding may differ where the twin rounds through float64
        np.testing.assert_allclose(out[:tokens, : shape[0]], plain[:tokens], rtol=1e-5, atol=1e-6 * np.abs(plain).max())
        np.testing.assert_array_equal(out[:tokens], most[:tokens])
        assert not out[tokens:].any(), "rows that were not asked for were written"


@pytest.mark.parametrize("kind", KERNEL_KINDS)
def test_a_range_of_blocks_is_added_to_the_output(kind, problem):
    matrix, x = problem(kind, 112, 96)
    whole = run(matrix, x, 7)
    out = np.ones_like(whole)
    run(matrix, x, 7, 2, 5, add=True, out=out)
    np.testing.assert_array_equal(out[:7, 32:80], np.float32(1) + whole[:7, 32:80])
    assert (out[:, :32] == 1).all() and (out[:, 80:] == 1).all()


@pytest.mark.parametrize("kind", WRITABLE_BLOCKS)
def test_quantized_activations_are_within_their_error_bound(kind, problem):
    """|W x - W s q| <= sum over groups of s / 2 * sum of |w|: each byte is off by half a step at most."""
    matrix, x = problem(kind, 48, 160)
    weight = unpack(matrix).astype(np.float64)
    exact = x.values[:33, :160].astype(np.float64) @ weight.T
    steps = np.repeat(x.scales.transpose(0, 2, 1).reshape(len(x.values), -1), 32, axis=1)[:33, :160]
    bound = 0.5 * steps @ np.abs(weight).T
    assert np.all(np.abs(run(matrix, x, 33)[:33, :48] - exact) <= bound + 1e-5)


@pytest.mark.parametrize("kind", KERNEL_KINDS)
@pytest.mark.parametrize("shape", [(40, 96), (112, 160), (5, 32)], ids=str)
def test_prefill_rows_are_within_their_error_bound_and_batch_invariant(kind, shape, problem):
    matrix, x = problem(kind, *shape)
    most = max(TOKENS)
    weight, values = unpack(matrix).astype(np.float64), x.values[:most, : shape[1]].astype(np.float64)
    exact, size = values @ weight.T, np.abs(values) @ np.abs(weight).T
    bound = 2.0**-8 + 2.0**-16 if form_read(kind.number, prefill=True) == BFLOATS else 0.0
    plain = linear_plain(matrix, x, most)
    bound = bound * size + 2.0**-22 * size if bound else np.abs(plain - exact) + 2.0**-22 * size
    whole = run(matrix, x, most, decode_rows=0)
    assert np.all(np.abs(whole[:most, : shape[0]] - exact) <= bound)
    for decode_rows, tokens in ((0, 1), (0, 16), (3, 17), (16, 33), (5, 6)):
        out = run(matrix, x, tokens, decode_rows=decode_rows)
        np.testing.assert_array_equal(out[decode_rows:tokens], whole[decode_rows:tokens])
        if decode_rows:
            np.testing.assert_array_equal(out[:decode_rows], run(matrix, x, decode_rows)[:decode_rows])
    out = np.ones_like(whole)
    run(matrix, x, 20, 0, 1, add=True, out=out, decode_rows=4)
    np.testing.assert_allclose(out[4:20, :16], 1 + whole[4:20, :16], rtol=1e-5, atol=1e-5)
    assert (out[:20, 16:] == 1).all()
