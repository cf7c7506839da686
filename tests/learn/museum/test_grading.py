"""The three levels: what locates, what counts as a repair, what a test must see; and code that hangs or breaks."""

import pytest

from nano_llama.learn.museum import grading
from nano_llama.learn.museum.grading import check_fix, check_trap, is_the_line, run_clone_tests, run_tests
from nano_llama.learn.museum.trees import edited, sound, write_tree

from .conftest import DETECTOR

UNITS = "core/units.py"


@pytest.fixture
def planted(tmp_path, units_room):
    write_tree(tmp_path, edited(units_room.files, units_room.plant))
    return tmp_path


def line_of(text, words):
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


def test_the_line_and_its_neighbours_locate(units_room):
    text = edited([UNITS], units_room.plant)[UNITS]
    right = line_of(text, "count <= 1024")
    found = {line for line in range(1, 30) if is_the_line(units_room, UNITS, line, text)}
    assert found == {right - 1, right, right + 1}
    assert not is_the_line(units_room, "core/version.py", 1, sound("core/version.py"))


def test_a_file_that_was_changed_is_followed(units_room):
    text = edited([UNITS], units_room.plant)[UNITS]
    longer = '"""Mine."""\n\nimport os\n' + text
    assert is_the_line(units_room, UNITS, line_of(longer, "count <= 1024"), longer)
    assert not is_the_line(units_room, UNITS, line_of(text, "count <= 1024"), longer)
    repaired = sound(UNITS)
    assert is_the_line(units_room, UNITS, line_of(repaired, "count < 1024"), repaired), "first fixed, then located"


def test_a_repair(units_room, planted):
    outcome = check_fix(units_room, planted)
    assert not outcome.passed
    assert outcome.failed == "test_sizes"
    assert "sizes are ['1,023 bytes', '1,024 bytes'" in outcome.message
    file = planted / "nano_llama" / UNITS
    file.write_text(edited([UNITS], units_room.wrong_fix)[UNITS])
    assert not check_fix(units_room, planted).passed
    file.write_text(sound(UNITS).replace("if count < 1024:", "if not count >= 1024:"))
    assert check_fix(units_room, planted).passed, "another repair that holds"


def test_a_repair_must_pass_the_clones_tests_too(make_units_room, planted, monkeypatch):
    asked = []
    monkeypatch.setattr(grading, "run_clone_tests", lambda tests, tree: asked.append((tests, tree)))
    room = make_units_room(("plant =", 'tests = ["tests/core/test_units.py", "tests/none.py"]\nplant ='))
    check_fix(room, planted)
    assert asked == [], "the detector comes first"
    (planted / "nano_llama" / UNITS).write_text(sound(UNITS))
    check_fix(room, planted)
    assert asked == [([grading.CLONE / "tests" / "core" / "test_units.py"], planted)]


@pytest.mark.museum
def test_the_clones_tests_run_on_the_tree(tmp_path):
    tests = [grading.CLONE / "tests" / "core" / "test_units.py"]
    write_tree(tmp_path / "sound", {UNITS: sound(UNITS)})
    assert run_clone_tests(tests, tmp_path / "sound").passed
    write_tree(tmp_path / "faulty", {UNITS: sound(UNITS).replace("if count < 1024:", "if count < 10:")})
    outcome = run_clone_tests(tests, tmp_path / "faulty")
    assert not outcome.passed
    assert outcome.message.startswith("FAILED")


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ('assert size_text(1024) == "1.0 KiB" and size_text(1480) == "1.4 KiB"', None),
        ('assert size_text(1024) == "1 KiB"', "sound"),
        ("raise NotImplementedError", "sound"),
        ('assert size_text(1000) == "1,000 bytes"', "plant"),
        ('assert size_text(1024) == "1.0 KiB"', "variant"),
    ],
)
def test_a_trap(units_room, tmp_path, body, where):
    file = tmp_path / "test_room.py"
    file.write_text(f"from nano_llama.core.units import size_text\n\n\ndef test_room():\n    {body}\n")
    found, outcome = check_trap(units_room, file)
    assert found == where
    if where == "sound":
        assert outcome.line == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def test_(:\n", "SyntaxError"),
        ("import nothing_of_the_kind\n", "ModuleNotFoundError"),
        ("x = 1\n", "no function whose name begins with test_"),
        ("import os\nos._exit(3)\n", "It ended its process."),
        ("def test_a():\n    while True: pass\n", "longer than 2 s"),
    ],
)
def test_what_is_no_test(tmp_path, monkeypatch, text, message):
    monkeypatch.setattr(grading, "SECONDS", 2.0 if "while" in text else 20.0)
    file = tmp_path / "test_room.py"
    file.write_text(text)
    outcome = run_tests(file, None)
    assert not outcome.passed
    assert outcome.broken
    assert message in outcome.message


def test_what_pytest_raises_is_a_failure_like_others(tmp_path):
    file = tmp_path / "test_room.py"
    file.write_text("import pytest\n\n\ndef test_a():\n    with pytest.raises(ValueError):\n        pass\n")
    outcome = run_tests(file, None)
    assert (outcome.failed, outcome.line, outcome.broken) == ("test_a", 5, False)
    assert "DID NOT RAISE" in outcome.message


def test_what_a_test_prints_is_kept_and_its_time_is_counted(tmp_path):
    file = tmp_path / "test_room.py"
    file.write_text(f"{DETECTOR}\n\ndef test_second():\n    print('seen')\n    assert 1 == 2\n")
    outcome = run_tests(file, None)
    assert (outcome.failed, outcome.message, outcome.printed) == (
        "test_second",
        "an assertion does not hold",
        "seen\n",
    )
    assert outcome.seconds > 0
