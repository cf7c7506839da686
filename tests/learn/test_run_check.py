"""A check from outside: which stage stops a wrong file, what it is told, and that nothing brings the checker down."""

import shutil
from dataclasses import replace

import pytest

from nano_llama.learn.run_check import Checker


def test_the_reference_passes(verdict_on):
    verdict = verdict_on()
    assert verdict.passed
    assert verdict.stage is None


@pytest.mark.parametrize(
    ("old", "new", "stage", "message"),
    [
        ("x * x, (x", "x * x, (x,, ", "imports", "Python cannot read it: line 3"),
        ("def forward", "import nano_llama.vol1_numpy\n\n\ndef forward", "imports", "It imports nano_llama.vol1_numpy"),
        ("def forward", "from os import nothing\n\n\ndef forward", "imports", "Importing it fails: ImportError"),
        ("def forward", "raise SystemExit(3)\n\n\ndef forward", "imports", "Importing it fails: SystemExit"),
        ("return a * x * x", "return (a * x * x).sum(0)", "shapes", "y has shape (3,); expected (2, 3)"),
        ("return a * x * x", "return (a * x * x).astype('f8')", "shapes", "y is float64; expected float32"),
        ("return a * x * x, (x, a)", "return a * x * x", "shapes", "forward returned one ndarray; expected two"),
        ("return 2 * a * x * dy", "...", "shapes", "backward returned None"),
        ("def backward", "def backwards", "shapes", "no function 'backward'"),
        ("return a * x * x", "x *= a\n    return x * x", "shapes", "forward changes its argument 'x' in place"),
        ("return a * x * x", "return a * x * x * x", "smallest", "y is wrong."),
        ("return a * x * x", "return a * x * x * (1 if len(x) < 3 else 2)", "random", "y is wrong."),
        ("return 2 * a * x", "return 3 * a * x", "gradcheck", "dx is wrong."),
        ("return a * x * x", "return 1 / (1 / (a * x * x))", "", ""),
        ("return 2 * a * x * dy", "return 2 * a * x * dy / (x != 0)", "edge", "dx is wrong."),
    ],
)  # fmt: skip
def test_the_stage_that_stops_it(verdict_on, old, new, stage, message):
    verdict = verdict_on((old, new))
    if not stage:  # infinite in between, and right all the same
        assert verdict.passed
        return
    assert not verdict.passed
    assert verdict.stage == stage
    assert message in verdict.message


def test_the_smallest_example_is_shown_with_what_was_expected_and_found(verdict_on):
    verdict = verdict_on(("return a * x * x", "return x * x"))
    assert verdict.case == "N = 1, D = 1"
    assert verdict.inputs.splitlines()[0] == "x = [[0.1]]"
    assert (float(verdict.expected), float(verdict.found)) == pytest.approx((0.02, 0.01))
    assert verdict.index == [0, 0]


def test_a_known_mistake_is_named(verdict_on):
    """Found by what it returns, not by how it is written."""
    verdict = verdict_on(("return 2 * a * x * dy", "return (x * dy) * a"))
    assert verdict.stage == "gradcheck"
    assert verdict.known
    assert verdict.says == "The 2 of the square is missing."


def test_an_unknown_mistake_gets_a_pattern(verdict_on):
    verdict = verdict_on(("return a * x * x", "return a * x * x * (1 if x.size < 2 else -1)"))
    assert verdict.stage == "smallest"
    assert not verdict.known
    assert "opposite" in verdict.says


def test_a_pattern_that_one_number_does_not_show_is_looked_for_in_larger_cases(verdict_on):
    verdict = verdict_on(("return a * x * x", "return a * x * x + x.size * 0.3"))
    assert verdict.case == "N = 1, D = 1"
    assert "off by the same" in verdict.says


def test_the_seed_repeats_a_random_failure(verdict_on):
    change = ("return a * x * x", "return a * x * x * (1 if len(x) < 3 else 2)")
    first, again, other = verdict_on(change, seed=3), verdict_on(change, seed=3), verdict_on(change, seed=4)
    assert first.seed == 3
    assert first.inputs == again.inputs != other.inputs


def test_an_error_names_the_line(verdict_on):
    verdict = verdict_on(("return 2 * a * x * dy", "return 2 * a * x / (1 // 0)"))
    assert "ZeroDivisionError" in verdict.message
    assert "return 2 * a * x / (1 // 0)" in verdict.where


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x = 1\0", b"x = " + b"(" * 300, b"-" * 100_000 + b"1", None])
def test_a_file_that_is_not_python_is_said_to_be_so(square, checker, tmp_path, content):
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_bytes(content)
    verdict = checker.check(square, file, 0)
    assert verdict.stage == "imports"
    assert verdict.message.startswith("Python cannot read it: ")
    assert "None" not in verdict.message


def test_a_file_that_asks_for_input_finds_none(verdict_on):
    verdict = verdict_on(("return a * x * x", "return float(input())"))
    assert verdict.message.startswith("EOFError")


def test_what_the_file_prints_is_returned_and_not_mixed_into_the_answer(verdict_on):
    verdict = verdict_on(("return a * x * x", "print('here', x.shape)\n    return x"))
    assert not verdict.passed
    assert "here (1, 1)" in verdict.printed


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("while True: pass", "ran longer than 2 s"),
        ("import os; os._exit(3)", "ended its process (status 3)"),
        ("x = [0] * 10**9", "MemoryError"),
    ],
)
def test_a_file_that_hangs_crashes_or_eats_memory_costs_a_verdict(square, tmp_path, body, says):
    checker = Checker(stage_seconds=2)
    file = tmp_path / "mine.py"
    try:
        file.write_text(f"def forward(x, a):\n    {body}\n")
        verdict = checker.check(square, file, 0)
        assert not verdict.passed
        assert verdict.stage == "shapes"
        assert says in verdict.message
        assert checker.check(square, square.folder / "solution.py", 0).passed, "the next check is as good as new"
    finally:
        checker.close()


@pytest.mark.parametrize(
    ("training", "allowed", "passed", "message"),
    [
        (False, 30, True, ""),
        (True, 30, False, "y is wrong."),
        (True, 1, False, "ran longer than 1 s"),
        (True, 0, True, ""),
    ],
)
def test_the_stage_that_trains_has_a_time_of_its_own(square, tmp_path, training, allowed, passed, message):
    """It takes longer than any other stage may: a checker asks it last, or not at all."""
    folder = tmp_path / "exercise"
    shutil.copytree(square.folder, folder)
    case = 'Case("training", "long", lambda module: (time.sleep(1.5), {"y": module.forward(2.0, 2.0)[0]})[1],'
    more = f"    from nano_llama.learn.checks import Case\n    yield {case} expected=lambda: {{'y': 9.0}})\n"
    (folder / "check.py").write_text((folder / "check.py").read_text() + more)
    long = replace(square, training_seconds=allowed)
    object.__setattr__(long, "where", folder)
    checker = Checker(stage_seconds=20, training=training)
    try:
        verdict = checker.check(long, folder / "solution.py", 0)
    finally:
        checker.close()
    assert verdict.passed == passed
    assert verdict.stage == (None if passed else "training")
    assert message in verdict.message
