"""What every source of text has in common: the interface, how documents split, which files are read, a fingerprint.

Tests: tests/data/test_sources.py.

How text is split into "train" and "val":

    a folder with val.txt, valid-*.parquet    those files are the validation split, all others the training split,
                                              but for test files and cards (split_names.py)
    one document                              its last 10% of characters (nanoGPT's cut)
    several documents                         each by a hash of its name, one in twenty to validation; adding a document
                                              moves no other to another split
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from nano_llama.core.errors import UserError
from nano_llama.data.readers import Document, kind_of

Split = Literal["train", "val"]
SPLITS: tuple[Split, Split] = ("train", "val")
RULES_VERSION = 2  # part of every fingerprint: raise it when the rules above change
VAL_SHARE = 0.05  # of the documents, if there are several
SINGLE_TEXT_CUT = 0.9  # train gets int(0.9 * characters)
HASH_WHOLE_BYTES = 32 * 2**20  # a larger file is identified by its size, time, head and tail


class Source:
    """A body of text. Documents come in a fixed order; empty ones are skipped."""

    name: str

    def documents(self, split: Split) -> Iterator[Document]:
        raise NotImplementedError

    def fingerprint(self, rules: int = RULES_VERSION) -> str:
        """A hex digest that changes when the text, or the rules by which it is read, may have changed."""
        raise NotImplementedError

    def size_hint(self) -> int:
        """About how many bytes of text, both splits together; used for progress bars and the number of workers."""
        raise NotImplementedError


def list_files(
    folder: Path,
    skip: Callable[[str], bool] = lambda name: name.startswith("."),
    wanted: Callable[[Path], object] = kind_of,
) -> list[Path]:
    """The `wanted` files below `folder`, by default those whose kind we read, sorted by their path.

    skip(name) excludes files and folders.
    """
    found = []
    for parent, folders, files in os.walk(folder):  # links to folders are not followed: they may form a cycle
        folders[:] = [name for name in folders if not skip(name)]
        found += [Path(parent, name) for name in files if not skip(name) and wanted(Path(name))]
    return sorted((file for file in found if file.is_file()), key=lambda file: file.relative_to(folder).as_posix())


def split_documents(
    read: Callable[[], Iterator[Document]], split: Split, where: str, val_share: float = VAL_SHARE
) -> Iterator[Document]:
    """The documents of `read()` that belong to `split`, by the rules in this file's header."""
    documents = read()
    first, second = next(documents, None), next(documents, None)
    if first is None:
        raise UserError(f"{where}: no text: every document is empty.", hint="Give a file or a folder with text.")
    if second is None:
        cut = int(SINGLE_TEXT_CUT * len(first.text))
        text = first.text[:cut] if split == "train" else first.text[cut:]
        if text:
            yield Document(first.name, text)
        return
    del first, second
    threshold = _validation_threshold(read, val_share)
    for document in read():
        if (_place(document.name) <= threshold) == (split == "val"):
            yield document


def _place(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:6], "big") / 2**48


def _validation_threshold(read: Callable[[], Iterator[Document]], val_share: float) -> float:
    """Documents placed at or below it are for validation. `val_share`, unless that leaves a split empty."""
    places = set()
    for document in read():
        places.add(_place(document.name))
        if min(places) <= val_share < max(places):
            return val_share
    ranked = sorted(places)
    return ranked[0] if val_share < ranked[0] else ranked[-2]


def fingerprint_files(files: dict[Path, str], rules: int = RULES_VERSION) -> str:
    """A digest of names and contents; of a large file only size, time of change, first and last MB."""
    total = hashlib.sha256(f"rules {rules}\n".encode())
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
