"""An exercise in a chapter says what `nano-llama learn` says of it."""

from html import escape

import pytest

from helpers.prose import ROOT
from nano_llama.learn import exercises

pytestmark = pytest.mark.book


def test_title_difficulty_and_command_are_the_commands_own(book):
    written = [one for one in exercises() if (ROOT / f"book/chapters/{one.chapter}.md").exists()]
    if not written:
        pytest.skip("the first chapter with exercises is being written")
    exercise = written[0]
    text = f"# One\n\n```{{exercise}} {exercise.name}\n```\n"
    built = book({"chapters/one": text, "formulas.json": all_formulas()})
    assert built.code == 0, built.said
    page = built.page("chapters/one")
    assert escape(exercise.title) in page and f"difficulty {exercise.stars} of 3" in page
    assert f"nano-llama learn goto {exercise.name}" in page


def test_an_exercise_that_is_not_there_ends_the_build(book):
    built = book({"chapters/one": "# One\n\n```{exercise} 01_nothing/01_nowhere\n```\n"})
    assert built.code != 0 and "01_nothing/01_nowhere" in built.said


def test_every_exercise_stands_in_its_chapter():
    chapters = {path.stem: path.read_text() for path in (ROOT / "book/chapters").glob("*.md")}
    missing = [one.name for one in exercises() if one.chapter in chapters and one.name not in chapters[one.chapter]]
    assert not missing


def all_formulas() -> str:
    return (ROOT / "book/formulas.json").read_text()
