"""Where text comes from: a name, a file or a folder -> documents in a fixed order, in two splits.

Not here: reading one file (readers.py) and what is built in (builtin.py). Tests: tests/data/test_sources.py.

    open_source("stdlib" | "shakespeare" | "classic-books" | PATH)

How text is split into "train" and "val":

    a folder with val.txt, val.parquet, ...   those files are the validation split, all others train
    one document                              its last 10% of characters (nanoGPT's cut)
    several documents                         each by a hash of its name: one in twenty validates; adding a document
                                              moves no other from one side to the other
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from nano_llama.core.errors import UserError
from nano_llama.data.download import Progress
from nano_llama.data.readers import COMPRESSED, SUFFIXES, Document, kind_of, read_documents

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
RULES_VERSION = 1  # part of every fingerprint: raise it when the rules above change
VAL_SHARE = 0.05  # of the documents, where they are several
SINGLE_TEXT_CUT = 0.9  # train gets int(0.9 * characters)
HASH_WHOLE_BYTES = 32 * 2**20  # a larger file is known by its size, time, head and tail


class Source:
    """A body of text. Documents come in one order, the same at every reading; those without a character never come."""

    name: str

    def documents(self, split: Split) -> Iterator[Document]:
        raise NotImplementedError

    def fingerprint(self) -> str:
        """A hex digest that changes when the text may have changed."""
        raise NotImplementedError

    def size_hint(self) -> int:
        """About how many bytes of text, both splits together: for progress bars and the number of workers."""
        raise NotImplementedError


def open_source(spec: str | Path | Source, progress: Progress | None = None) -> Source:
    """The source called `spec`: a built-in name, a file or a folder ("./stdlib" is a folder of that name).

    Downloads report to `progress`. Raises UserError naming what there is to choose from.
    """
    from nano_llama.data import builtin

    if isinstance(spec, Source):
        return spec
    name = str(spec)
    if name == "stdlib":
        return builtin.StandardLibrary()
    if name == "shakespeare":
        return builtin.Shakespeare(progress=progress)
    if name == "classic-books":
        return builtin.ClassicBooks(progress=progress)
    path = Path(name).expanduser()
    if not name or not path.exists():
        raise UserError(
            f"No data at {name!r}: not a file, not a folder, and not one of {', '.join(builtin.NAMES)}.",
            hint="stdlib needs no network: it is the Python standard library's own source on this machine.",
        )
    return LocalSource(path)


class LocalSource(Source):
    """A file, or a folder with all the readable files below it (hidden ones left out), in the order of their names."""

    def __init__(self, path: Path):
        self.path = path
        self.name = path.resolve().name.split(".")[0] or "text"
        root = path if path.is_dir() else path.parent
        files = list_files(path) if path.is_dir() else [path]
        if not files:
            raise UserError(
                f"{path}: no readable files in this folder.",
                hint=f"Read are {' '.join(SUFFIXES)}, also compressed ({' '.join(COMPRESSED)}).",
            )
        if kind_of(files[0]) is None:
            next(read_documents(files[0], ""))  # raises the error that says what we read
        names = {file: file.relative_to(root).as_posix() for file in files}
        val = [file for file in files if path.is_dir() and file.parent == path and file.name.split(".")[0] == "val"]
        if val and len(val) == len(files):
            raise UserError(f"{path}: only validation files ({val[0].name}).", hint="Put training text beside them.")
        self.files = names
        self.val_files = val

    def documents(self, split: Split) -> Iterator[Document]:
        if self.val_files:
            yield from self._read([file for file in self.files if (file in self.val_files) == (split == "val")])
        else:
            yield from split_documents(lambda: self._read(list(self.files)), split, str(self.path))

    def fingerprint(self) -> str:
        return fingerprint_files(self.files)

    def size_hint(self) -> int:
        return sum(file.stat().st_size * _EXPANSION.get(file.suffix.lower(), 1) for file in self.files)

    def _read(self, files: list[Path]) -> Iterator[Document]:
        for file in files:
            yield from read_documents(file, self.files[file])


_EXPANSION = {".gz": 3, ".zst": 3, ".parquet": 3}  # text bytes per byte on disk, roughly


def list_files(folder: Path, skip: Callable[[str], bool] = lambda name: name.startswith(".")) -> list[Path]:
    """The files below `folder` whose kind we read, sorted by their path; `skip` judges names of files and folders."""
    found = []
    for parent, folders, files in os.walk(folder):  # links to folders are not followed: they may form a circle
        folders[:] = [name for name in folders if not skip(name)]
        found += [Path(parent, name) for name in files if not skip(name) and kind_of(Path(name))]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.relative_to(folder).as_posix())


def split_documents(
    read: Callable[[], Iterator[Document]], split: Split, where: str, val_share: float = VAL_SHARE
) -> Iterator[Document]:
    """The documents of `read()` that belong to `split`, by the rules at the head of this file."""
    documents = read()
    first, second = next(documents, None), next(documents, None)
    if first is None:
        raise UserError(f"{where}: no text in it: every document is empty.", hint="Give a file or a folder with text.")
    if second is None:
        cut = int(SINGLE_TEXT_CUT * len(first.text))
        text = first.text[:cut] if split == "train" else first.text[cut:]
        if text:
            yield Document(first.name, text)
        return
    del first, second
    bar = _validation_bar(read, val_share)
    for document in read():
        if (_place(document.name) <= bar) == (split == "val"):
            yield document


def _place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big") / 2**48


def _validation_bar(read: Callable[[], Iterator[Document]], val_share: float) -> float:
    """Documents placed at or below it validate. `val_share`, unless that would leave one of the splits empty."""
    places = set()
    for document in read():
        places.add(_place(document.name))
        if min(places) <= val_share < max(places):
            return val_share
    ranked = sorted(places)
    return ranked[0] if val_share < ranked[0] else ranked[-2]


def fingerprint_files(files: dict[Path, str]) -> str:
    """A digest of names and contents; of a large file, size, time of change, first and last MB stand for the rest."""
    total = hashlib.sha256(f"rules {RULES_VERSION}\n".encode())
    for file, name in files.items():
        try:
            status = file.stat()
            with file.open("rb") as stream:
                if status.st_size <= HASH_WHOLE_BYTES:
                    digest = hashlib.sha256(stream.read())
                else:
                    digest = hashlib.sha256(f"{status.st_size} {status.st_mtime_ns}".encode() + stream.read(2**20))
                    stream.seek(-(2**20), os.SEEK_END)
                    digest.update(stream.read())
        except OSError as error:
            hint = "Check the path and its permissions."
            raise UserError(f"Cannot read {file}: {error.strerror or error}.", hint=hint) from error
        total.update(f"{name}\0{status.st_size}\0{digest.hexdigest()}\n".encode("utf-8", "surrogateescape"))
    return total.hexdigest()
