"""The exercises that ship, in the book's order, read from their folders.

Tests: tests/learn/test_catalogue.py.
"""

import re
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import NamedTuple

from nano_llama.core.errors import UserError

FOLDER = Path(__file__).with_name("exercises")
HINT_STAGES = ("a question", "the equation", "the line")
KINDS = {  # what a check looks at
    "G": "gradients, against central differences",
    "P": "what must hold for random inputs",
    "H": "results, against another way to compute them",
    "N": "numbers",
    "R": "results, gradients and memory",
    "M": "your test, on sound code and on faulty code",
    "T": "what you read from traces",
}
_FIRST_LINE = re.compile(r"# stage: (?P<stage>\w+) \| says: (?P<says>.+)")


class Wrong(NamedTuple):
    """A wrong solution that is kept: the stage that must reject it, and what its author is to be told."""

    file: Path
    stage: str
    says: str


@dataclass(frozen=True)
class Exercise:
    """One exercise; `statement` is Markdown with formulas between dollar signs."""

    name: str  # "06_norms/02_qk_norm"
    title: str
    stars: int  # 1 to 3
    minutes: int  # what it takes a reader of the chapter
    kind: str  # a key of KINDS
    statement: str
    imports: tuple[str, ...]  # modules of this package that a solution may import
    hints: tuple[str, ...]  # in the order of HINT_STAGES
    training_seconds: int = 0  # that the stage "training" may take; 0: there is none

    @property
    def chapter(self) -> str:
        return self.name.partition("/")[0]

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def stub(self) -> str:
        return (self.folder / "stub.py").read_text(encoding="utf-8")

    @property
    def solution(self) -> str:
        return (self.folder / "solution.py").read_text(encoding="utf-8")

    def wrong_solutions(self) -> list[Wrong]:
        return [read_wrong(file) for file in sorted((self.folder / "wrong").glob("*.py"))]


def read_wrong(file: Path) -> Wrong:
    line = file.read_text(encoding="utf-8").partition("\n")[0]
    found = _FIRST_LINE.fullmatch(line)
    assert found, f"{file}: the first line must be  # stage: NAME | says: SENTENCE"
    return Wrong(file, found["stage"], found["says"])


@cache
def exercises() -> tuple[Exercise, ...]:
    """All of them, in the book's order."""
    files = sorted(FOLDER.glob("*/*/exercise.toml"))
    return tuple(_read(file) for file in files)


def exercise(name: str) -> Exercise:
    """The exercise of that name, or the one whose name ends so: "qk_norm", "06/02", "02_qk_norm".

    Raises UserError where there is none, or more than one.
    """
    wanted = name.removesuffix(".py").strip("/")
    every = exercises()
    exact = [one for one in every if one.name == wanted]
    found = exact or [one for one in every if wanted and _matches(one.name, wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{name!r} could be {', '.join(one.name for one in found)}.", hint="Type enough to tell them apart."
        )
    short = {one.name.partition("/")[2][3:]: one.name for one in every}
    near = get_close_matches(wanted.rpartition("/")[2].lstrip("0123456789_"), short, n=1)
    meant = f"Did you mean {short[near[0]]}?  " if near else ""
    raise UserError(f"There is no exercise {name!r}.", hint=f"{meant}See  nano-llama learn list")


def _matches(name: str, wanted: str) -> bool:
    """Whether each part of `wanted` begins the last parts of the name, with or without their numbers."""
    parts, asked = name.split("/"), wanted.split("/")
    if len(asked) > len(parts):
        return False
    pairs = zip(parts[-len(asked) :], asked, strict=True)
    return all(part in (word, f"{part[:3]}{word}") or part[:2] == word for part, word in pairs)


def _read(file: Path) -> Exercise:
    data = tomllib.loads(file.read_text(encoding="utf-8"))
    data["imports"] = tuple(data.get("imports", ()))
    data["hints"] = tuple(text.strip() for text in data["hints"])
    data["statement"] = data["statement"].strip()
    return Exercise(name=f"{file.parents[1].name}/{file.parent.name}", **data)
