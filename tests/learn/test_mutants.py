"""Mutants differ from the source in one place each, are valid Python, and are the same for a seed."""

import ast

import pytest

from nano_llama.learn.mutants import mutants

SOURCE = """
import numpy as np


def f(x, w):
    y = x @ w.T
    if x.size > 0:
        y += 1
    return -y * np.sum(x, axis=-1), (x, w)
"""


@pytest.mark.parametrize(
    "line",
    [
        "y = w.T @ x", "y = x @ w", "if x.size >= 0:", "if x.size > 1:", "y += 2", "y -= 1", "pass",
        "return (y * np.sum(x, axis=-1), (x, w))", "return (-y / np.sum(x, axis=-1), (x, w))",
        "return (-y * np.mean(x, axis=-1), (x, w))", "return (-y * np.sum(x, axis=-2), (x, w))",
        "return (-y, (x, w))", "return (np.sum(x, axis=-1), (x, w))",
    ],
)  # fmt: skip
def test_each_slip_is_made(line):
    whole = {line.strip() for line in ast.unparse(ast.parse(SOURCE)).splitlines()}
    found = [mutant.source for mutant in mutants(SOURCE, 1000)]
    changed = [{text.strip() for text in source.splitlines()} - whole for source in found]
    assert {line} in changed


def test_all_are_different_and_none_is_the_original():
    found = [mutant.source for mutant in mutants(SOURCE, 1000)]
    assert len(set(found)) == len(found)
    assert ast.unparse(ast.parse(SOURCE)) not in found


def test_a_sample_is_drawn_by_its_seed():
    assert len(mutants(SOURCE, 5)) == 5
    assert mutants(SOURCE, 5, seed=1) == mutants(SOURCE, 5, seed=1) != mutants(SOURCE, 5, seed=2)
