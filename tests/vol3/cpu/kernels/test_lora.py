"""Low-rank updates: shrink and expand against their references, for rows in runs and for no others."""

import numpy as np
import pytest

from nano_llama.formats.kinds import Kind
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.activations import activations
from nano_llama.vol3_engine.cpu.kernels.lora import LowRank, expand, expand_plain, set_aside, shrink, shrink_plain
from nano_llama.vol3_engine.cpu.kernels.model import GATE_UP, GATE_UP_A, Adapters

ROWS, COLUMNS, OUT = 21, 37, 64
RUNS = {  # adapter, first row, row after the last: the others have none
    "one row": [(1, 4, 5)],
    "all rows of one": [(0, 0, ROWS)],
    "mixed": [(0, 0, 1), (1, 1, 6), (0, 9, 12), (1, 12, 21)],
}
RANKS = (3, 18)


@pytest.fixture(scope="module", params=[Kind.F32, Kind.BF16], ids=str)
def problem(request):
    """Two adapters beside gate and up, 16 rows of which alternate -> x, y and what `Adapters` holds."""
    rng = np.random.default_rng(0)
    data, rescalings, start = [], [], 0
    A, B, plain = np.zeros((2, 1, 4, 5), np.int64), np.zeros((2, 1, 6, 8), np.int64), []
    for number, r in enumerate(RANKS):
        for table, at, shape in ((A, GATE_UP_A, (2 * r, COLUMNS)), (B, GATE_UP, (OUT, r))):
            packed = pack.pack_floats(rng.normal(size=shape).astype(np.float32), request.param.number)
            entry = (packed.kind, packed.rows, packed.columns, start, start + packed.data.nbytes)
            table[number, 0, at, :5] = entry
            data.append(packed.data)
            plain.append(pack.unpack(packed))
            start += packed.data.nbytes
        B[number, 0, GATE_UP, 5:] = 0, r, OUT * number
        rescalings.append(rng.normal(size=OUT).astype(np.float32))
    x = activations(ROWS + 16, COLUMNS)
    x.values[:, :COLUMNS] = rng.normal(size=(len(x.values), COLUMNS))
    y = rng.normal(size=(ROWS + 16, OUT)).astype(np.float32)
    adapters = Adapters(np.concatenate(data), np.concatenate(rescalings), A, B)
    return x, y, adapters, list(zip(plain[::2], plain[1::2], rescalings, strict=True))


def lora_of(adapters, runs):
    low, aside = np.zeros((ROWS + 16, 48), np.float32), np.zeros((ROWS + 16, OUT), np.float32)
    return LowRank(adapters, np.array(runs, np.int64).reshape(-1, 3), low, aside)


def expected(x, y, parts, runs):
    """By the references, run by run."""
    y = y.copy()
    for number, start, stop in runs:
        A, B, rescaling = parts[number]
        low, r = shrink_plain(x.values[start:stop, :COLUMNS], A), len(A) // 2
        for block in range(OUT // 16):  # of gate, of up, of gate, ...
            rows, half = slice(16 * block, 16 * block + 16), low[:, block % 2 * r :][:, :r]
            y[start:stop, rows] = expand_plain(y[start:stop, rows], half, B[rows], rescaling[rows])
    return y


def close(found, meant):
    np.testing.assert_allclose(found, meant, rtol=1e-5, atol=1e-5)  # the reference rounds through float64


@pytest.mark.parametrize("runs", RUNS)
def test_rows_of_runs_are_updated_and_no_others(problem, runs):
    x, y, adapters, parts = problem
    lora, out = lora_of(adapters, RUNS[runs]), y.copy()
    shrink(lora, 0, GATE_UP_A, 0, ROWS, x)
    expand(lora, 0, GATE_UP, 0, ROWS, 0, OUT // 16, False, out, 0)
    close(out, expected(x, y, parts, RUNS[runs]))
    outside = np.ones(len(y), bool)
    for _, start, stop in RUNS[runs]:
        outside[start:stop] = False
    np.testing.assert_array_equal(out[outside], y[outside])
    assert not lora.low[outside].any()


def test_bits_do_not_depend_on_the_run_or_on_how_the_work_is_divided(problem):
    x, y, adapters, _ = problem
    whole, out = lora_of(adapters, [(1, 0, ROWS)]), y.copy()
    shrink(whole, 0, GATE_UP_A, 0, ROWS, x)
    expand(whole, 0, GATE_UP, 0, ROWS, 0, OUT // 16, False, out, 0)
    for runs in ([(1, 5, 6)], [(1, 0, 2), (1, 2, 5), (1, 5, 6), (1, 6, ROWS)]):
        lora, panel = lora_of(adapters, runs), y[3:].copy()
        for first, last in ((0, 4), (4, 11), (11, ROWS)):  # rows, as threads divide them
            shrink(lora, 0, GATE_UP_A, first, last, x)
        for block in range(OUT // 16):  # a panel of rows 3 ... 17 and its blocks
            expand(lora, 0, GATE_UP, 3, 18, block, block + 1, False, panel, 16 * block)
        found = slice(5, 6) if len(runs) == 1 else slice(3, 18)
        np.testing.assert_array_equal(panel[found.start - 3 : found.stop - 3], out[found])
        np.testing.assert_array_equal(panel[15:], y[18:])


def test_what_was_put_aside_comes_back_and_is_not_rescaled(problem):
    """x + (rescaling * W x + B low), where W's product is added to x."""
    x, y, adapters, parts = problem
    runs, product = RUNS["mixed"], np.random.default_rng(1).normal(size=y.shape).astype(np.float32)
    lora, out = lora_of(adapters, runs), y.copy()
    shrink(lora, 0, GATE_UP_A, 0, ROWS, x)
    set_aside(lora, 0, GATE_UP, 1, 3, out)
    out += product
    expand(lora, 0, GATE_UP, 0, ROWS, 1, 3, True, out, 16)
    close(out[:, 16:48], (y + expected(x, product, parts, runs))[:, 16:48])
    np.testing.assert_array_equal(out[:, :16], y[:, :16] + product[:, :16])  # other threads' blocks


def test_an_adapter_that_does_not_change_a_matrix_leaves_it_alone(problem):
    x, y, adapters, _ = problem
    lora, out = lora_of(adapters, RUNS["mixed"]), y.copy()
    shrink(lora, 0, 0, 0, ROWS, x)
    set_aside(lora, 0, 0, 0, OUT // 16, out)
    expand(lora, 0, 0, 0, ROWS, 0, OUT // 16, True, out, 0)
    np.testing.assert_array_equal(out, y)
