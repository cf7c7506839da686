"""The decorator: callees are linked into compiled code and become machine code with it, once."""

import numpy as np
import pytest
from numba import njit

from nano_llama.vol3_engine.cpu.jit.jit import always_inline, kernel, noinline


@kernel
def twice(x):
    return 2 * x


@kernel
def thrice(x):
    return 3 * x


@kernel
def not_inlined(x):
    noinline()
    return twice(x) + 1


@kernel
def inlined(x):
    always_inline()
    return thrice(x) + 1


@kernel
def deep(x):
    return not_inlined(x) - inlined(x)


@kernel
def power(base, exponent):
    noinline()
    result = 1
    for _ in range(exponent):
        result *= base
    return result


@kernel
def per_item(total, count):
    return total / count


def test_kernels_of_one_signature_stay_themselves():
    """Nothing but their own compilation tells them apart for their callers."""
    caller = njit(lambda x: (twice(x), thrice(x), not_inlined(x), inlined(x), deep(x)))
    for x in (5, 2.5):
        assert caller(x) == (2 * x, 3 * x, 2 * x + 1, 3 * x + 1, -x), x


def test_a_kernel_can_be_called_from_python_and_from_compiled_code():
    assert deep(7) == -7
    assert njit(lambda x: deep(x))(7) == -7
    assert deep(0.5) == -0.5


@pytest.mark.parametrize("x", [3, 1.5])
def test_a_callee_is_not_compiled_by_itself(x):
    inner = kernel(lambda x: x * x)
    assert njit(lambda x: inner(x) + inner(x))(x) == 2 * x * x
    assert not inner.overloads, "its code is part of its caller"
    assert inner(x) == x * x
    assert len(inner.overloads) == 1


def functions(caller, name):
    """How many functions of that name are in the caller's code."""
    (code,) = caller.inspect_llvm().values()
    return sum(line.startswith("define") and f"{len(name)}{name}" in line for line in code.splitlines())


def test_noinline_and_always_inline():
    caller = njit(lambda x: deep(x) * deep(x + 1))
    caller(1)
    assert [functions(caller, name) for name in ("not_inlined", "inlined", "thrice")] == [1, 0, 0]


def test_constants_do_not_specialize():
    caller = njit(lambda x: (power(x, 2), power(x, 3), power(2, x), power(exponent=2, base=x)))
    assert caller(5) == (25, 125, 32, 25)
    assert functions(caller, "power") == 1


def test_division_by_zero_is_infinite():
    assert np.isinf(njit(lambda a, b: per_item(a, b))(1.0, 0.0))


def test_an_error_in_a_kernel_names_it():
    broken = kernel(lambda x: x.missing_attribute)
    with pytest.raises(Exception, match="missing_attribute"):
        njit(lambda x: broken(x))(1)
