"""What the tests of learn share: one process that checks files, and an exercise of their own."""

import pytest

from nano_llama.learn.catalogue import Exercise
from nano_llama.learn.run_check import Checker

CHECK = """
import time

from nano_llama.learn.checks import function_cases, op_cases


def make(rng, N, D):
    return {"x": rng.standard_normal((N, D)), "a": 2.0}


def cases(seed):
    small = [{"N": 1, "D": 1}, {"N": 2, "D": 3}]
    yield from op_cases(
        "forward", "backward", make, wrt=("x",), small=small, random=[{"N": 3, "D": 4}], seed=seed,
        edges={"zeros": {"x": 0 * make(__import__("numpy").random.default_rng(0), 2, 2)["x"], "a": 2.0}},
    )
"""
SOLUTION = """
def forward(x, a):
    return a * x * x, (x, a)


def backward(dy, cache):
    x, a = cache
    return 2 * a * x * dy
"""
WRONG = """# stage: gradcheck | says: The 2 of the square is missing.
def forward(x, a):
    return a * x * x, (x, a)


def backward(dy, cache):
    x, a = cache
    return a * x * dy
"""


class SquareExercise(Exercise):
    """y = a x^2, in a folder of the test."""

    @property
    def folder(self):
        return self.where


@pytest.fixture(scope="session")
def square(tmp_path_factory):
    folder = tmp_path_factory.mktemp("square")
    (folder / "wrong").mkdir()
    (folder / "check.py").write_text(CHECK)
    (folder / "solution.py").write_text(SOLUTION)
    (folder / "stub.py").write_text("def forward(x, a):\n    ...\n")
    (folder / "wrong" / "no_two.py").write_text(WRONG)
    exercise = SquareExercise("00_test/01_square", "Square", 1, 5, "G", "Square it.", (), ("why", "how", "what"))
    object.__setattr__(exercise, "where", folder)
    return exercise


@pytest.fixture(scope="session")
def checker():
    checker = Checker(stage_seconds=20, training=False)
    yield checker
    checker.close()


@pytest.fixture
def verdict_on(square, checker, tmp_path):
    """The verdict on a solution of `square`, made from the reference by replacing text."""

    def check(*changes, source=None, seed=7):
        text = source or SOLUTION
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "mine.py"
        file.write_text(text)
        return checker.check(square, file, seed)

    return check
