"""`learn dev check`: it sees each broken promise. One exercise here; all by  pytest -m slow."""

import shutil
from dataclasses import replace

import pytest

from nano_llama.learn import exercise, exercises
from nano_llama.learn.dev_check import about_files, check_exercises


def silent(text):
    pass


def test_a_sample_of_the_exercises():
    report = check_exercises([exercise("qk_norm")], silent, num_mutants=10)
    assert report.faults == []
    assert report.rejected == 1


@pytest.mark.slow
def test_all_exercises():
    report = check_exercises(exercises(), silent)
    assert report.faults == []
    assert report.rejected >= 0.95
    assert report.named == report.wrong >= 4 * len(exercises())


@pytest.mark.parametrize(
    ("file", "text", "fault"),
    [
        ("stub.py", None, "the stub passes"),  # None: the reference
        ("solution.py", "def forward(x, a):\n    return x, ()\n", "the reference fails at"),
        ("wrong/no_two.py", None, "no_two.py passes"),
        (
            "wrong/no_two.py",
            "# stage: edge | says: The 2 of the square is missing.\n",
            "no_two.py is rejected at gradcheck",
        ),
        ("wrong/no_two.py", "# stage: gradcheck | says: Something else.\n", ""),
    ],
)
def test_broken_promises_are_seen(square, tmp_path, file, text, fault):
    folder = tmp_path / "exercise"
    shutil.copytree(square.folder, folder)
    broken = type(square)(*(getattr(square, name) for name in square.__dataclass_fields__))
    object.__setattr__(broken, "where", folder)
    first_line, rest = "", (square.folder / "wrong" / "no_two.py").read_text()
    if file.startswith("wrong"):
        first_line, _, rest = rest.partition("\n")
        if text is None:
            text = first_line + (folder / "solution.py").read_text()
        else:
            text += rest
    (folder / file).write_text((folder / "solution.py").read_text() if text is None else text)
    faults = check_exercises([broken], silent, num_mutants=0).faults
    if fault:
        assert any(fault in found for found in faults), faults
    else:
        assert not any("no_two.py" in found for found in faults), "another sentence is found by what the code does"


def test_a_chapter_does_not_know_what_comes_later():
    linear = "nano_llama.vol1_numpy.ops.linear"
    for name, late in (("04_linear_and_embedding/01_bias", True), ("06_norms/02_qk_norm", False)):
        found = about_files(replace(exercise(name), imports=(linear,)))
        assert any(linear in fault for fault in found) == late


def test_what_files_show(square):
    found = about_files(square)
    assert found == ["1 wrong solutions; at least 4 are kept"]
