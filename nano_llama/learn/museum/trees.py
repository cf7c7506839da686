"""Copies of some of the package's files in a folder, which Python imports in place of the installed ones.

    write_tree(folder, edited(room.files, room.plant))       # {file: text}, below folder/nano_llama

With `folder` first on sys.path, `import nano_llama` finds the __init__.py that stands there: it lets the folder's files
take precedence, and leaves all other modules to the installed package. So a room copies a few files, not hundreds.
Tests: tests/learn/museum/test_trees.py.
"""

from collections.abc import Iterable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from nano_llama.core.files import write_text
from nano_llama.learn.museum.catalogue import Edit

PACKAGE = Path(__file__).parents[2]

INIT = '''\
"""This folder's modules, and for all others the installed package. Written by `nano-llama museum`."""

import sys
from importlib.util import spec_from_file_location
from pathlib import Path

HERE, INSTALLED = Path(__file__).parent, Path({installed!r})


class HereFirst:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("nano_llama."):
            file = HERE.joinpath(*name.split(".")[1:]).with_suffix(".py")
            if file.is_file():
                return spec_from_file_location(name, file)
        return None


sys.meta_path.insert(0, HereFirst)
__path__ = [str(INSTALLED)]
__file__ = str(INSTALLED / "__init__.py")
exec(compile(Path(__file__).read_text(encoding="utf-8"), __file__, "exec"))
'''


class TextIsGone(Exception):
    """The package has changed: an edit's old text does not stand in it once."""


def sound(file: str) -> str:
    return (PACKAGE / file).read_text(encoding="utf-8")


def edited(files: Iterable[str], edits: Iterable[Edit] = ()) -> dict[str, str]:
    """The package's text of these files, and of those that the edits change, with the edits made.

    Raises TextIsGone where an old text does not stand there exactly once.
    """
    texts = {file: sound(file) for file in files}
    for edit in edits:
        text = texts.get(edit.file) or sound(edit.file)
        if text.count(edit.old) != 1:
            raise TextIsGone(f"{edit.file} holds {text.count(edit.old)} times: {edit.old!r}")
        texts[edit.file] = text.replace(edit.old, edit.new)
    return texts


def write_tree(folder: Path, texts: Mapping[str, str]) -> None:
    """Below folder/nano_llama: an __init__.py that lets these files take precedence, and the files."""
    write_text(folder / "nano_llama" / "__init__.py", INIT.format(installed=str(PACKAGE)))
    for file, text in texts.items():
        write_text(folder / "nano_llama" / file, text)


def changed_lines(before: str, after: str) -> set[int]:
    """Lines of `after` (from 1) that a change made or touched: its own and one on each side of it."""
    found: set[int] = set()
    for tag, _, _, begin, end in _opcodes(before, after):
        if tag != "equal":
            found.update(range(begin, end + 2))
    return found


def same_lines(line: int, theirs: str, ours: str) -> set[int]:
    """The lines of `ours` that line `line` of `theirs` came from.

    One; of lines that a change replaced by others, the one at the same part of the block and those beside it, so that
    a file written anew as one line does not stand for all of its lines.
    """
    for tag, i1, i2, j1, j2 in _opcodes(theirs, ours):
        if not i1 < line <= i2:
            continue
        if tag == "equal":
            return {line - i1 + j1}
        place = j1 + 1 + (line - i1 - 1) * (j2 - j1) // (i2 - i1)
        return set(range(max(j1 + 1, place - 1), min(j2, place + 1) + 1))
    return set()


def _opcodes(before: str, after: str) -> Sequence[tuple[str, int, int, int, int]]:
    return SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False).get_opcodes()
