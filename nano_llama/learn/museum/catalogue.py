"""The rooms that ship, by number, read from their archives.

Tests: tests/learn/museum/test_catalogue.py.
"""

import random
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from nano_llama.core.errors import UserError

ARCHIVES = Path(__file__).with_name("rooms")
SOURCES = Path(__file__).parents[3] / "dev" / "museum"  # in a clone
PARTS = ("room.toml", "detector.py", "page.md")
CAUSES = "abcde"


@dataclass(frozen=True)
class Edit:
    """A change of the package: `old` stands once in `file` (below nano_llama/), and `new` takes its place."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Room:
    """One fault with all that belongs to it. The fields are those of room.toml, save the last two."""

    number: int
    title: str
    stars: int  # 1 to 3
    symptom: str  # as its user reported it; Markdown
    files: tuple[str, ...]  # below nano_llama/: what the learner gets, most of it sound
    causes: tuple[str, ...]  # five, the right one first; shown in another order once the line is found
    history: tuple[str, ...]  # URLs; none for a warm-up
    plant: tuple[Edit, ...]  # what the learner gets
    variant: tuple[Edit, ...]  # a second fault of the kind, never shown: the learner's test must see it too
    wrong_fix: tuple[Edit, ...]  # sound code -> what a repair that is not one leaves behind
    tests: tuple[str, ...] = ()  # a clone's own test files that a repair must pass
    detector: str  # the source of detector.py
    page: str

    def causes_shown(self) -> dict[str, str]:
        """By letter, in an order of the room's own."""
        order = list(self.causes)
        random.Random(self.number).shuffle(order)
        return dict(zip(CAUSES, order, strict=True))

    @property
    def cause(self) -> str:
        """The letter of the right one."""
        return next(letter for letter, text in self.causes_shown().items() if text == self.causes[0])


@cache
def rooms() -> tuple[Room, ...]:
    """All of them, by number."""
    return tuple(read_archive(file) for file in sorted(ARCHIVES.glob("*.zip")))


def room(number: int) -> Room:
    """Raises UserError where there is none of that number."""
    for one in rooms():
        if one.number == number:
            return one
    raise UserError(f"There is no room {number}.", hint="See  nano-llama museum list")


def source_folders() -> list[Path]:
    """The rooms as their authors write them: NN_name below dev/museum, in a clone; else none."""
    return sorted(SOURCES.glob("[0-9][0-9]_*"))


def read_source(folder: Path) -> Room:
    return make_room(int(folder.name[:2]), {name: (folder / name).read_text(encoding="utf-8") for name in PARTS})


def read_archive(file: Path) -> Room:
    with ZipFile(file) as archive:
        return make_room(int(file.stem), {name: archive.read(name).decode() for name in PARTS})


def make_room(number: int, texts: Mapping[str, str]) -> Room:
    """texts: the contents of PARTS by name."""
    data = tomllib.loads(texts["room.toml"])
    edits = {kind: tuple(Edit(**edit) for edit in data.pop(kind)) for kind in ("plant", "variant", "wrong_fix")}
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    fields: dict[str, Any] = data | lists | edits
    fields["symptom"] = fields["symptom"].strip()
    return Room(number=number, detector=texts["detector.py"], page=texts["page.md"].strip(), **fields)


def pack(folder: Path) -> Path:
    """Write a room's archive from its folder."""
    file = ARCHIVES / f"{folder.name[:2]}.zip"
    with ZipFile(file, "w", ZIP_DEFLATED) as archive:
        for name in PARTS:
            archive.writestr(ZipInfo(name), (folder / name).read_bytes(), ZIP_DEFLATED)  # ZipInfo: no date
    return file
