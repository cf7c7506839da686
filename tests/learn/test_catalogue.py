"""The exercises that ship: found by name, complete, and their files in the wheel."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from nano_llama.core.errors import UserError
from nano_llama.learn import exercise, exercises
from nano_llama.learn.dev_check import about_files

ROOT = Path(__file__).parents[2]


def test_they_come_in_the_books_order():
    names = [one.name for one in exercises()]
    assert names == sorted(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("one", exercises(), ids=lambda one: one.name)
def test_what_can_be_seen_without_running_is_right(one):
    assert about_files(one) == []


def test_a_name_may_be_its_end():
    whole = exercise("06_norms/02_qk_norm")
    for name in ("qk_norm", "02_qk_norm", "06/02", "06_norms/02", "norms/qk_norm", "06_norms/02_qk_norm.py"):
        assert exercise(name) is whole, name


def test_unknown_and_ambiguous_names():
    with pytest.raises(UserError, match="no exercise 'norm'"):
        exercise("norm")
    with pytest.raises(UserError) as raised:
        exercise("06/qk_nrom")
    assert raised.value.hint.startswith("Did you mean 06_norms/02_qk_norm?")
    with pytest.raises(UserError, match="no exercise ''"):
        exercise("")
    every = [one.name for one in exercises() if one.name.split("/")[1].startswith("02_")]
    if len(every) > 1:
        with pytest.raises(UserError, match="could be"):
            exercise("02")


def test_every_file_of_an_exercise_is_package_data():
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["nano_llama"]
    package = ROOT / "nano_llama"
    files = [path for path in (package / "learn" / "exercises").rglob("*.*") if "__pycache__" not in path.parts]
    assert files
    for path in files:
        relative = path.relative_to(package)
        same_depth = [pattern for pattern in patterns if pattern.count("/") == len(relative.parts) - 1]
        assert any(fnmatch(str(relative), pattern) for pattern in same_depth), relative
