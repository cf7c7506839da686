"""Each axis' naive form against one process, as test_training.py does with the real ones; and how long they are."""

import ast
from pathlib import Path

import numpy as np
import pytest

from helpers.parallel import naive_cases
from helpers.parallel.training import Training, reference
from nano_llama.core.names import parameter_shapes
from nano_llama.vol2_torch import parallel

TRAININGS = {tied: Training(tied=tied, dtype="float64", steps=1) for tied in (True, False)}
MOST_LINES = 60  # of code, without docstrings, comments, blank lines and imports


def assembled(shape, parts):
    """A tensor from what the ranks hold: all of it each, flat slices (filled up), or parts along one dimension."""
    if parts[0].shape == shape:
        assert all(np.array_equal(part, parts[0]) for part in parts), "the ranks' copies differ"
        return parts[0]
    if parts[0].ndim == 1:
        return np.concatenate(parts)[: int(np.prod(shape))].reshape(shape)
    dim = next(dim for dim in range(len(shape)) if parts[0].shape[dim] != shape[dim])
    return np.concatenate(parts, dim)


@pytest.mark.parallel
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("case", [naive_cases.data_parallel, naive_cases.fully_sharded, naive_cases.tensor_parallel])
def test_the_naive_form_equals_one_process(ranks, case, tied):
    training = TRAININGS[tied]
    answers = ranks(2).run(case, training=training)
    expected = reference(training)
    for loss, _ in answers:
        assert loss == pytest.approx(expected.losses[0], rel=1e-12)
    for name, shape in parameter_shapes(training.config()).items():
        found = assembled(shape, [gradients[name] for _, gradients in answers])
        error = np.abs(found - expected.gradients[name]).max() / np.abs(expected.gradients[name]).max()
        assert error < 1e-12, f"{case.__name__}: the gradient of {name} differs by {error:.1e}"


NAIVE = sorted(Path(parallel.__path__[0]).glob("naive_*.py"))


@pytest.mark.parametrize("path", NAIVE, ids=[path.stem for path in NAIVE])
def test_a_naive_form_is_short(path):
    tree = ast.parse(path.read_text())
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and not isinstance(node, ast.Import | ast.ImportFrom) and not is_docstring(node):
            lines.add(node.lineno)
            if not hasattr(node, "body"):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    assert len(lines) <= MOST_LINES, f"{path.name} has {len(lines)} lines of code"


def is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
