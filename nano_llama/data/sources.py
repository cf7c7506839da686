"""Where text comes from: a name, a file or a folder -> documents in a fixed order, in two splits.

    open_source("stdlib" | "shakespeare" | "classic-books" | PATH)

Not here: how text is split into "train" and "val" (corpus.py), reading one file (readers.py), the built-in texts
(builtin.py). Tests: tests/data/test_sources.py.
"""

import warnings
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path, PurePath

from nano_llama.core.errors import UserError
from nano_llama.data import builtin
from nano_llama.data.corpus import RULES_VERSION, SPLITS, Source, Split, fingerprint_files, list_files, split_documents
from nano_llama.data.download import Progress
from nano_llama.data.readers import COMPRESSED, SUFFIXES, Document, kind_of, read_documents
from nano_llama.data.split_names import Assigned, assign, is_card, is_unread_data, names_a_split

__all__ = ["SPLITS", "LocalSource", "Source", "Split", "open_source"]


def open_source(spec: str | Path | Source, progress: Progress | None = None) -> Source:
    """The source called `spec`: a built-in name, a file or a folder ("./stdlib" is a folder of that name).

    Downloads report to `progress`. Raises UserError, naming the choices.
    """
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
        close = get_close_matches(path.name.split(".")[0], builtin.NAMES, n=1)
        raise UserError(
            f"No data at {name!r}: it is not a file, a folder or one of {', '.join(builtin.NAMES)}.",
            hint=f"Did you mean {close[0]}, which is fetched?"
            if close and close[0] != "stdlib"
            else "stdlib needs no network: it is the Python standard library's own source on this machine.",
        )
    return LocalSource(path)


class LocalSource(Source):
    """A file, or a folder with the readable files below it, in the order of their names.

    Left out are hidden files, and those that by their name are a test split or no text (split_names.py).
    """

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
        if not kind_of(files[0]):
            next(read_documents(files[0], ""))  # raises the error that says what we read
        names = {file: file.relative_to(root).as_posix() for file in files}
        if path.is_dir():
            _check_unread(path, [PurePath(name) for name in names.values()])
        self.val_files: list[Path] = []
        if path.is_dir():
            assigned = assign([PurePath(name) for name in names.values()])
            path_of = {name: file for file, name in names.items()}
            self.val_files = [path_of[name.as_posix()] for name in assigned.val]
            read = {path_of[name.as_posix()] for name in (*assigned.train, *assigned.val)}
            _check_parts(path, assigned)
            names = {file: name for file, name in names.items() if file in read}
        self.files = names

    def documents(self, split: Split) -> Iterator[Document]:
        if self.val_files:
            yield from self._read([file for file in self.files if (file in self.val_files) == (split == "val")])
        else:
            yield from split_documents(lambda: self._read(list(self.files)), split, str(self.path))

    def fingerprint(self, rules: int = RULES_VERSION) -> str:
        return fingerprint_files(self.files, rules)

    def size_hint(self) -> int:
        return sum(file.stat().st_size * _EXPANSION.get(file.suffix.lower(), 1) for file in self.files)

    def _read(self, files: list[Path]) -> Iterator[Document]:
        for file in files:
            yield from read_documents(file, self.files[file])


def _check_unread(path: Path, files: list[PurePath]) -> None:
    """Say that a data set's files are of a kind that is not read, before something beside them is taken for it."""
    unread = [PurePath(file.relative_to(path).as_posix()) for file in list_files(path, wanted=is_unread_data)]
    named = [file for file in unread if names_a_split(file)]
    shown = ", ".join(map(str, (named or unread)[:4])) + (" ..." if len(named or unread) > 4 else "")
    if unread and all(map(is_card, files)):
        raise UserError(
            f"{path}: no text but {files[0]}; its data are of a kind that is not read: {shown}.",
            hint=f"Convert them to .jsonl or .parquet, or name the file itself: {path / files[0]}",
        )
    if named:
        warnings.warn(
            f"{path}: not read are {shown}: files of this kind are not. Convert them to .jsonl or .parquet.",
            stacklevel=4,
        )


def _check_parts(path: Path, assigned: Assigned) -> None:
    """Refuse a folder without text for training, and say what is left out of the others."""
    if not assigned.train:
        kind, files = ("validation", assigned.val) if assigned.val else ("test", assigned.test)
        raise UserError(
            f"{path}: only {kind} files ({files[0]}).",
            hint=f"Put training text beside them, or name the file itself to train on it: {path / files[0]}",
        )
    for files, what in (
        (assigned.test, "the test split, used for neither training nor validation"),
        (assigned.no_text, "not text of the corpus"),
    ):
        if files:
            shown = ", ".join(map(str, files[:4])) + (f" and {len(files) - 4} more" if len(files) > 4 else "")
            warnings.warn(f"{path}: not read are {shown}: by name, {what}.", stacklevel=4)


_EXPANSION = {".gz": 3, ".zst": 3, ".parquet": 3}  # text bytes per byte on disk, roughly
