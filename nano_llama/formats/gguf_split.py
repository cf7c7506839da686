"""A GGUF split into parts by llama-gguf-split: NAME-00001-of-00003.gguf and so on, opened by the first.

The first part holds all metadata; each holds its own tensors and says which part it is:

    split.no   from 0       split.count   parts       split.tensors.count   in all parts together

Not here: one file (gguf_reader.py). Tests: tests/formats/test_gguf_split.py.
"""

import re
from pathlib import Path

import numpy as np

from nano_llama.core.errors import FormatError
from nano_llama.formats.gguf_reader import GGUFFile, TensorInfo

_NAME = re.compile(r"(?P<stem>.+)-(?P<part>\d{5})-of-(?P<parts>\d{5})\.gguf")
MAX_PARTS = 1000  # each is a mapped file


class SplitGGUF(GGUFFile):
    """All parts as one file: the metadata of the first, the tensors of all."""

    def __init__(self, first: GGUFFile, others: list[GGUFFile]):
        self.path, self.metadata = first.path, first.metadata
        self._part_of: dict[str, GGUFFile] = {}
        tensors: dict[str, TensorInfo] = {}
        for part in (first, *others):
            for name, info in part.tensors.items():
                if name in tensors:
                    raise FormatError(
                        f"{part.path}: the tensor {name!r:.80} is also in {self._part_of[name].path.name}."
                    )
                tensors[name], self._part_of[name] = info, part
        self.tensors = tensors
        self._parts = (first, *others)

    def blocks(self, name: str) -> np.ndarray:
        return self._part_of[name].blocks(name)

    def release_pages(self) -> None:
        for part in self._parts:
            part.release_pages()

    def close(self) -> None:
        for part in self._parts:
            part.close()


def open_gguf(path: str | Path) -> GGUFFile:
    """A GGUF file, with its other parts if it is the first of several.

    Raises FormatError for another part than the first, and for parts that are missing or of another model.
    """
    first = GGUFFile(path)
    count = _number(first, "split.count", 1)
    number = _number(first, "split.no", 0)
    if count <= 1 and number == 0:
        return first
    if not number < count <= MAX_PARTS:
        raise FormatError(
            f"{path} says that it is part {number + 1} of {count}.", hint=f"At most {MAX_PARTS} are read."
        )
    names = part_names(first.path.name)
    if number != 0:
        here = (first.path.parent / names[0]) if names else None
        raise FormatError(
            f"{path} is part {number + 1} of {count} of a model, and has no metadata.",
            hint=f"Open the first part{f': {here}' if here and here.is_file() else ''}; the others are read with it.",
        )
    if names is None or len(names) != count or names[0] != first.path.name:
        raise FormatError(
            f"{path} is the first of {count} parts, but its name does not say so.",
            hint=f"The parts must be called NAME-00001-of-{count:05d}.gguf, NAME-00002-of-{count:05d}.gguf ...",
        )
    missing = [name for name in names if not (first.path.parent / name).is_file()]
    if missing:
        raise FormatError(
            f"{path} is the first of {count} parts, of which {len(missing)} are missing: {', '.join(missing[:3])}.",
            hint="Put all parts into one folder.",
        )
    others = [GGUFFile(first.path.parent / name) for name in names[1:]]
    for place, part in enumerate(others, start=1):
        if (_number(part, "split.no", -1), _number(part, "split.count", -1)) != (place, count):
            raise FormatError(
                f"{part.path} is not part {place + 1} of {count}, as its name says.", hint="Was it renamed?"
            )
    whole = SplitGGUF(first, others)
    promised = _number(first, "split.tensors.count", len(whole.tensors))
    if promised != len(whole.tensors):
        raise FormatError(
            f"{path}: {len(whole.tensors)} tensors in its {count} parts, but {promised} are promised.",
            hint="Do the parts belong together?",
        )
    return whole


def part_names(name: str) -> list[str] | None:
    """The file names of all parts of the model of which `name` is one; None for a name without a part's number."""
    found = _NAME.fullmatch(name)
    if found is None or not 1 <= int(found["part"]) <= int(found["parts"]) <= MAX_PARTS:
        return None
    return [f"{found['stem']}-{part:05d}-of-{found['parts']}.gguf" for part in range(1, int(found["parts"]) + 1)]


def _number(file: GGUFFile, key: str, default: int) -> int:
    value = file.metadata.get(key, default)
    if type(value) is not int:
        raise FormatError(f"{file.path}: {key} = {value!r:.80} is not one whole number.")
    return value
