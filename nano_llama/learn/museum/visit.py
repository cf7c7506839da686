"""The learner's folder: museum/NN for each room that was entered, and museum/.state.json, what happened so far.

In museum/NN the room's files lie below nano_llama, the fault among them; SYMPTOM.txt says what its user reported, and
test_room.py is the learner's own test.

Tests: tests/learn/museum/test_visit.py.
"""

import time
from pathlib import Path, PurePath
from typing import Any

from nano_llama.core.errors import EnvironmentFault, FormatError, UserError
from nano_llama.core.files import read_json, write_json, write_text
from nano_llama.learn.museum.catalogue import Room
from nano_llama.learn.museum.trees import TextIsGone, edited, write_tree

TRIES = 3
LEVELS = ("located", "fixed", "trapped")
STATE = ".state.json"
STATES = ("new", "entered", *LEVELS)

STUB = '''\
"""Room {number}, {title}: your test.

It must pass on the sound package, and fail on this room's fault and on another of its kind. Write functions test_*()
without arguments that assert what must hold. Here, on your copy:  python test_room.py
"""


def test_room():
    raise NotImplementedError


if __name__ == "__main__":
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print("passed:", name)
'''


class Visit:
    """What one learner has done in one folder. Every change is written at once, atomically.

    folder: by default the one that the working directory lies in, since a room is worked on from within; else ./museum.
    """

    def __init__(self, folder: Path | None = None):
        folder = _around(Path.cwd()) or Path("museum") if folder is None else folder
        self._folder = folder
        self._file = folder / STATE
        self._state = self._read()

    def _read(self) -> dict[str, Any]:
        if not self._file.exists():
            return {}
        try:
            state = read_json(self._file, "record of your visit")
        except FormatError as error:
            state = error
        if not isinstance(state, dict) or not all(map(_are_facts, state.values())):
            raise UserError(
                f"{self._file} is damaged: it is not a record of a visit.",
                hint="Move it away. The rooms' files stay as they are; tries are counted anew.",
            )
        return state

    # -- what is so

    def folder(self, room: Room) -> Path:
        return self._folder / f"{room.number:02d}"

    def test_file(self, room: Room) -> Path:
        return self.folder(room) / "test_room.py"

    def facts(self, room: Room) -> dict[str, Any]:
        """entered, located, fixed, trapped: times (seconds since 1970) or absent; tries, checks: how many."""
        return {"tries": 0, "checks": 0, **self._state.get(str(room.number), {})}

    def state(self, room: Room) -> str:
        """The furthest of STATES."""
        facts = self.facts(room)
        return next((name for name in reversed(STATES) if name in facts), "new")

    def tries_left(self, room: Room) -> int:
        return TRIES - self.facts(room)["tries"]

    def is_written(self, room: Room) -> bool:
        """Whether the learner's test differs from what `enter` wrote."""
        file = self.test_file(room)
        return file.is_file() and file.read_text(encoding="utf-8", errors="replace") != _stub(room)

    def file_of(self, room: Room, name: str) -> tuple[str, str]:
        """The room's file that a name or its end means, below nano_llama/, and the learner's text of it.

        Raises UserError where it means none, or more than one.
        """
        given = PurePath(name.removeprefix("./")).parts
        found = [file for file in room.files if given and _ends_alike(("nano_llama", *PurePath(file).parts), given)]
        if len(found) != 1:
            what = f"could be {' or '.join(found)}" if found else f"is not among the files of room {room.number}"
            raise UserError(f"{name!r} {what}.", hint=f"Its files: {', '.join(room.files)}.")
        self.require_files(room)
        return found[0], self._text(room, found[0])

    def _text(self, room: Room, file: str) -> str:
        return (self.folder(room) / "nano_llama" / file).read_text(encoding="utf-8", errors="replace")

    def require_files(self, room: Room) -> None:
        needed = ("__init__.py", *room.files)  # without the first, Python would import the package itself
        missing = [file for file in needed if not (self.folder(room) / "nano_llama" / file).is_file()]
        if missing:
            raise UserError(
                f"{self.folder(room) / 'nano_llama' / missing[0]} is gone.",
                hint=f"Remove {self.folder(room)} and begin again:  nano-llama museum enter {room.number}",
            )

    def is_unchanged(self, room: Room) -> bool:
        """Whether all of the room's files are as it was entered."""
        entered = edited(room.files, room.plant)
        return all(self._text(room, file) == entered[file] for file in room.files)

    def require_entered(self, room: Room) -> None:
        if self.state(room) == "new" or not self.folder(room).is_dir():
            raise UserError(f"Room {room.number} is not entered here.", hint=f"nano-llama museum enter {room.number}")

    # -- what happens

    def enter(self, room: Room) -> bool:
        """Write the room's files where there are none yet, and say whether that was so.

        Raises EnvironmentFault where this package is not the one that the room was made for.
        """
        created = not self.folder(room).exists()
        if created:
            try:
                texts = edited(room.files, room.plant)
            except TextIsGone as error:
                raise EnvironmentFault(
                    f"Room {room.number} does not fit this version of the package: {error}"
                ) from None
            write_text(self.folder(room) / "SYMPTOM.txt", f"Room {room.number}: {room.title}\n\n{room.symptom}\n")
            write_text(self.test_file(room), _stub(room))
            write_tree(self.folder(room), texts)
        if "entered" not in self.facts(room):
            self._record(room, entered=time.time())
        return created

    def use_try(self, room: Room) -> None:
        self._record(room, tries=self.facts(room)["tries"] + 1)

    def checked(self, room: Room) -> None:
        self._record(room, checks=self.facts(room)["checks"] + 1)

    def reach(self, room: Room, level: str) -> None:
        if level not in self.facts(room):
            self._record(room, **{level: time.time()})

    def _record(self, room: Room, **facts: Any) -> None:
        self._state.setdefault(str(room.number), {}).update(facts)
        write_json(self._file, self._state)


def _around(here: Path) -> Path | None:
    """The nearest folder of a visit that `here` is or lies in."""
    return next((one for one in (here, *here.parents) if one.name == "museum" and (one / STATE).is_file()), None)


def _stub(room: Room) -> str:
    return STUB.format(number=room.number, title=room.title)


def _ends_alike(file: tuple[str, ...], given: tuple[str, ...]) -> bool:
    shorter = min(len(file), len(given))
    return file[-shorter:] == given[-shorter:]


def _are_facts(facts: Any) -> bool:
    return isinstance(facts, dict) and all(isinstance(one, int | float) for one in facts.values())
