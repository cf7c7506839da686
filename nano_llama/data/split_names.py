"""Which split a file belongs to by its name: train, validation, test, or none because it is not text of the corpus.

The names are those of data sets on the Hugging Face hub, as the `datasets` library reads them:

    train.txt  train-00000-of-00002.parquet  TinyStories-train.txt  wiki.train.raw.txt  train/0000.jsonl    train
    val  valid  validation  dev  heldout                                                                    validation
    test  testing  eval  evaluation                                                                         left out
    README  LICENSE  COPYING  NOTICE  CITATION  requirements.txt                                            not text

A name may hold such a word by chance (the-test-of-time.txt): a word among others counts only where some file is
clearly for training, or a sibling has the same name but for the word. In source code and Markdown only `val` and
`validation` count, and folders beside a folder `train`: test.py and dev.md are pages like others.

Not here: how text is split where no name says it (corpus.py). Tests: tests/data/test_split_names.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

from nano_llama.data.readers import COMPRESSED, SUFFIXES, kind_of

_WORDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "heldout", "holdout"),
    "test": ("test", "testing", "eval", "evaluation"),
}
_ROLE = {word: role for role, words in _WORDS.items() for word in words}
_CLEAR = ("train", "training", "val", "validation", "test")  # say it by themselves, as a folder or at a name's end
_CARDS = ("readme", "license", "licence", "copying", "notice", "citation")
_SHARD = re.compile(r"[-._]\d+[-._]of[-._]\d+([-._][0-9a-f]+)?$")
_PROSE_AND_CODE = (".md", ".py")


@dataclass(frozen=True)
class Assigned:
    """A folder's files by their parts, each list in the order in which the files were given."""

    train: list[PurePath] = field(default_factory=list)
    val: list[PurePath] = field(default_factory=list)
    test: list[PurePath] = field(default_factory=list)
    no_text: list[PurePath] = field(default_factory=list)


def assign(files: Sequence[PurePath]) -> Assigned:
    """files: paths below the folder, of kinds that are read."""
    result = Assigned()
    texts = [file for file in files if not is_card(file)]
    result.no_text.extend(file for file in files if is_card(file))
    if not texts:  # a folder of nothing but cards is a corpus of cards
        texts = list(result.no_text)
        result.no_text.clear()
    names = [_Name(file) for file in texts]
    stems = {(name.folder, name.words) for name in names}
    trains = any(name.is_for_training() for name in names)
    roles = [name.role(stems, trains) for name in names]
    has_train_data = any(name.is_for_training() and not name.is_page for name in names)
    for name, role in zip(names, roles, strict=True):
        if role is None and name.is_page and has_train_data:  # a data set's script or page
            result.no_text.append(name.file)
        else:
            {"val": result.val, "test": result.test}.get(role or "train", result.train).append(name.file)
    return result


def is_unread_data(file: PurePath) -> bool:
    """True for a file of a data set that holds text in a form that is not read here."""
    name = file.name.lower()
    for ending in (*COMPRESSED, ".bz2", ".xz"):
        name = name.removesuffix(ending)
    if PurePath(name).suffix in SUFFIXES:
        return not kind_of(file)  # compressed in a way that is not read
    return PurePath(name).suffix in (".json", ".csv", ".tsv", ".arrow", ".tar", ".zip", ".tokens")


def names_a_split(file: PurePath) -> bool:
    return not _ROLE.keys().isdisjoint((*_words(file), *(part.lower() for part in file.parts[:-1])))


def is_card(file: PurePath) -> bool:
    """True for what accompanies a data set without being its text."""
    words = _words(file)
    if kind_of(file) == ".txt" and words == ("requirements",):
        return True
    return kind_of(file) in (".md", ".txt") and 0 < len(words) <= 2 and words[0] in _CARDS


class _Name:
    """What one file is called."""

    def __init__(self, file: PurePath):
        self.file, self.folder, self.words = file, file.parent, _words(file)
        self.is_page = kind_of(file) in _PROSE_AND_CODE

    def is_for_training(self) -> bool:
        """Is the name unambiguous? A .txt may be a novel with a train in its title, and train.py is a program."""
        said = {part.lower() for part in self.file.parts[:-1]}
        if self.words and (kind_of(self.file) in (".jsonl", ".parquet") or (len(self.words) == 1 and not self.is_page)):
            said |= {self.words[0], self.words[-1]}
        return not said.isdisjoint(_WORDS["train"])

    def role(self, stems: set[tuple[PurePath, tuple[str, ...]]], trains: bool) -> str | None:
        """ "train", "val", "test", or None. trains: some file is called one for training."""
        words = self.words
        if self.is_page:
            if words in (("val",), ("validation",)):
                return "val"
            top = self.file.parts[0].lower() if len(self.file.parts) > 1 else ""
            return _ROLE.get(top) if trains and top in _ROLE else None
        if len(words) == 1 and words[0] in _ROLE:
            return _ROLE[words[0]]
        for part in self.file.parts[:-1]:
            if (word := part.lower()) in _ROLE and (trains or word in _CLEAR):
                return _ROLE[word]
        for place, word in enumerate(words):
            if word not in _ROLE:
                continue
            at_an_end = place in (0, len(words) - 1)
            if _ROLE[word] == "train" or (at_an_end and trains):
                return _ROLE[word]
            if place == len(words) - 1 and word in ("val", "validation"):
                return "val"
            rest = words[:place], words[place + 1 :]
            siblings = [(*rest[0], *middle, *rest[1]) for middle in ((), ("train",), ("training",))]
            if any((self.folder, sibling) in stems for sibling in siblings):
                return _ROLE[word]
        return None


def _words(file: PurePath) -> tuple[str, ...]:
    """The words of a name, in small letters: ("tinystories", "train") for TinyStories-train-00000-of-00001.txt.gz."""
    name = file.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return tuple(re.findall(r"[^\W\d_]+", _SHARD.sub("", PurePath(name).stem)))
