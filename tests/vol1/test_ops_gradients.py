"""Every op, plain and fast, against central differences and against the autograd of an independent reference."""

import ast
import inspect
import textwrap

import numpy as np
import pytest

from helpers.op_references import make_case, relative_error
from nano_llama.vol1_numpy import GradientMismatch, gradcheck

SEEDS = range(10)


def test_differences_agree_with_the_backward(op_name):
    for seed in SEEDS:
        case = make_case(op_name, seed)
        gradcheck(case.forward, case.backward, case.inputs, wrt=case.wrt, samples=12, tolerance=1e-7)


def test_autograd_of_the_reference_agrees_in_float64(op_name):
    torch = pytest.importorskip("torch")
    for seed in SEEDS:
        case = make_case(op_name, seed)
        out, dout, grads = case.run()
        expected, expected_grads = case.judge(torch, dout)
        assert relative_error(out, expected) < 1e-12
        for name, grad in grads.items():
            assert relative_error(grad, expected_grads[name]) < 1e-10, (seed, name)


def test_float32_stays_float32_and_within_1e_4(op_name):
    torch = pytest.importorskip("torch")
    for seed in SEEDS:
        case = make_case(op_name, seed)
        out, dout, grads = case.run(np.float32)
        expected, expected_grads = case.judge(torch, dout)
        assert np.shape(out) == () or out.dtype == np.float32
        assert relative_error(out, expected) < 1e-5
        for name, grad in grads.items():
            assert grad.dtype == np.float32
            assert relative_error(grad, expected_grads[name]) < 1e-4, (seed, name)


def test_inputs_and_incoming_gradients_are_not_modified(op_name):
    case = make_case(op_name, 1)
    inputs = case.cast(np.float64)
    kept = {name: np.copy(value) for name, value in inputs.items() if isinstance(value, np.ndarray)}
    out, cache = case.forward(*inputs.values())
    dout = np.ones(np.shape(out)) if np.shape(out) else 1.0
    case.backward(dout, cache)
    for name, value in kept.items():
        np.testing.assert_array_equal(inputs[name], value, err_msg=name)
    assert np.all(np.equal(dout, 1))


# -- mutation: an error planted anywhere in a backward is caught, and the argument is named -------------------------

SWAPS = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}


class Swap(ast.NodeTransformer):
    """Replace the `number`-th arithmetic operator (+ - * / **) by its opposite."""

    def __init__(self, number):
        self.number, self.seen, self.line = number, 0, None

    def _visit(self, node):
        self.generic_visit(node)
        if type(node.op) in SWAPS:
            if self.seen == self.number:
                node.op, self.line = SWAPS[type(node.op)](), ast.unparse(node)
            self.seen += 1
        return node

    visit_BinOp = visit_AugAssign = _visit


def mutants(function):
    """(function with one operator swapped, the changed expression), for every operator."""
    source = textwrap.dedent(inspect.getsource(function))
    number = 0
    while True:
        tree, swap = ast.parse(source), Swap(number)
        swap.visit(tree)
        if swap.line is None:
            return
        scope = dict(function.__globals__)
        exec(compile(ast.fix_missing_locations(tree), f"<mutant {number}>", "exec"), scope)
        yield scope[function.__name__], swap.line
        number += 1


def caught(case, backward) -> str | None:
    """What gradcheck says of a planted error, or how the op itself broke; None: it passes."""
    try:
        gradcheck(case.forward, backward, case.inputs, wrt=case.wrt, samples=12)
    except GradientMismatch as mismatch:
        return str(mismatch)
    except (ValueError, ZeroDivisionError) as crash:
        return f"crashed: {crash}"
    return None


def test_every_mutation_is_caught_and_its_argument_named(op_name):
    cases = [make_case(op_name, seed) for seed in SEEDS]
    for mutant, line in mutants(cases[0].backward):
        with np.errstate(all="ignore"):
            message = next(filter(None, (caught(case, mutant) for case in cases)), None)
        assert message, f"{op_name}: nobody noticed {line!r}"
        named = any(f"gradient of {name!r}" in message for name in cases[0].wrt)
        assert named or message.startswith("crashed"), message


def test_ops_without_arithmetic_of_their_own_are_checked_by_a_scaled_gradient(op_name):
    case = make_case(op_name, 2)
    for wrong, name in enumerate(case.wrt):

        def planted(dout, cache, wrong=wrong):
            grads = case.backward(dout, cache)
            grads = list(grads) if isinstance(grads, tuple) else [grads]
            grads[wrong] = grads[wrong] * (1 + 1e-5)
            return tuple(grads)

        if np.any(case.run()[2][name]):  # scaling zeros plants nothing
            message = caught(case, planted)
            assert message and f"gradient of {name!r}" in message
            assert not any(f"gradient of {other!r}" in message for other in case.wrt if other != name)
