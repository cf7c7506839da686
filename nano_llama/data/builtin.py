"""The built-in texts: stdlib (on every disk), shakespeare and classic-books (downloaded once, checked, cached).

The package ships no third-party text. `classic_books.csv` beside this file lists which files of the books' archive are
taken, the SHA-256 of each cleaned text, and its split. Tests: tests/data/test_builtin.py.
"""

import csv
import hashlib
import re
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from nano_llama.core.env import cache_dir
from nano_llama.core.errors import EnvironmentFault, FormatError
from nano_llama.data.corpus import RULES_VERSION, Source, Split, fingerprint_files, list_files, split_documents
from nano_llama.data.download import Progress, check_sha256, download
from nano_llama.data.readers import Document, read_documents

NAMES = ("stdlib", "shakespeare", "classic-books")
STDLIB_HINT = "Without a network: --data stdlib, or any text file or folder of your own."


class StandardLibrary(Source):
    """The source code of the running Python's standard library, read in place: 12 MB without its tests and packages."""

    name = "stdlib"
    val_share = 0.02  # 250 kB: the whole split is evaluated within seconds on a laptop
    skipped = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})

    def __init__(self, folder: Path | None = None):
        self.folder = folder or Path(sysconfig.get_path("stdlib"))
        found = list_files(
            self.folder, lambda name: name in self.skipped or name.startswith(("config-", "_sysconfigdata"))
        )
        self.files = {file: file.relative_to(self.folder).as_posix() for file in found if file.suffix == ".py"}
        if not self.files:
            raise EnvironmentFault(
                f"This Python keeps no .py files of its standard library at {self.folder}.",
                hint="Use a Python from python.org, your system or pyenv, or give a text of your own with --data.",
            )

    def documents(self, split: Split) -> Iterator[Document]:
        yield from split_documents(self._read, split, str(self.folder), self.val_share)

    def fingerprint(self, rules: int = RULES_VERSION) -> str:
        return fingerprint_files(self.files, rules)

    def size_hint(self) -> int:
        return sum(file.stat().st_size for file in self.files)

    def _read(self) -> Iterator[Document]:
        for file, name in self.files.items():
            try:
                yield from read_documents(file, name)
            except FormatError:  # a module may declare another encoding than UTF-8; in 3.11 to 3.14 none does
                continue


class Shakespeare(Source):
    """The 1,115,394 characters of char-rnn's Shakespeare. The last 10% validate, as in nanoGPT."""

    name = "shakespeare"
    url = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
    sha256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"

    def __init__(self, progress: Progress | None = None, url: str | None = None, cache: Path | None = None):
        self.progress = progress
        self.url = url or self.url
        self.cache = cache or cache_dir() / "downloads"

    def documents(self, split: Split) -> Iterator[Document]:
        path = download(
            self.url,
            self.cache / "tinyshakespeare.txt",
            check_sha256(self.sha256),
            what="shakespeare (1.1 MB)",
            instead=STDLIB_HINT,
            progress=self.progress,
            max_bytes=2**24,
        )
        yield from split_documents(lambda: read_documents(path, "shakespeare"), split, str(path))

    def fingerprint(self, rules: int = RULES_VERSION) -> str:
        return hashlib.sha256(f"rules {rules}\n{self.sha256}".encode()).hexdigest()

    def size_hint(self) -> int:
        return 1_115_394


class ClassicBooks(Source):
    """744 public-domain books in Markdown, 325 MB: the files of one commit's archive that the manifest lists, cleaned.

    The archive stays packed in the cache; a book is unpacked, cleaned and checked against its SHA-256 as it is read.
    """

    name = "classic-books"
    commit = "944882722e9a96fa6cf2739dc2ea757e101f412f"
    url = f"https://codeload.github.com/mlschmitt/classic-books-markdown/zip/{commit}"
    manifest = Path(__file__).with_name("classic_books.csv")
    max_book_bytes = 2**26

    def __init__(
        self,
        progress: Progress | None = None,
        url: str | None = None,
        cache: Path | None = None,
        manifest: Path | None = None,
    ):
        self.progress = progress
        self.url = url or self.url
        self.cache = cache or cache_dir() / "downloads"
        self.manifest = manifest or self.manifest
        with self.manifest.open(encoding="utf-8", newline="") as file:
            self.books = list(csv.DictReader(file))  # in training order; columns path, sha256, split

    def documents(self, split: Split) -> Iterator[Document]:
        path = download(
            self.url,
            self.cache / f"classic-books-{self.commit[:12]}.zip",
            self._check,
            what="classic-books (about 130 MB)",
            instead=STDLIB_HINT,
            progress=self.progress,
        )
        with self._archive(path) as archive:
            top = _top_folder(archive)
            for book in self.books:
                if book["split"] == split:
                    yield Document(book["path"], self._read(path, archive, top, book))

    def fingerprint(self, rules: int = RULES_VERSION) -> str:
        return hashlib.sha256(f"rules {rules}\n".encode() + self.manifest.read_bytes()).hexdigest()

    def size_hint(self) -> int:
        return 440_000 * len(self.books)

    def _check(self, path: Path) -> None:
        """The archive can be opened and has every book; the books' texts are checked as they are read."""
        with self._archive(path) as archive:
            held = set(archive.namelist())
            missing = [book["path"] for book in self.books if _top_folder(archive) + book["path"] not in held]
        if missing:
            raise FormatError(
                f"{self.url}: {len(missing)} of {len(self.books)} books are not in the archive, first {missing[0]!r}.",
                hint="The server sent an archive that is not the commit's. Try again, or another network.",
            )

    def _archive(self, path: Path) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(path)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise FormatError(
                f"{path}: not a whole .zip archive ({error}).", hint=f"Remove {path} and run again."
            ) from error

    def _read(self, path: Path, archive: zipfile.ZipFile, top: str, book: dict[str, str]) -> str:
        """One book, cleaned. Raises FormatError where it is not what the manifest says."""
        try:
            entry = archive.getinfo(top + book["path"])
            if entry.file_size > self.max_book_bytes:
                raise FormatError(f"{path}: {book['path']} claims {entry.file_size:,} bytes.")
            text = clean_book(archive.read(entry).decode("utf-8"))
        except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, NotImplementedError) as error:
            raise FormatError(
                f"{path}: cannot read {book['path']} ({error}).", hint=f"Remove {path} and run again."
            ) from error
        found = hashlib.sha256(text.encode()).hexdigest()
        if found != book["sha256"]:
            raise FormatError(
                f"{path}: {book['path']} has SHA-256 {found} once cleaned, not {book['sha256']}.",
                hint=f"Remove {path} and run again: the archive is damaged or not that of commit {self.commit[:12]}.",
            )
        return text


def clean_book(text: str) -> str:
    """Without the head that ends in `-------`, with Unix line ends, stripped, and at most one empty line in a row."""
    head = text.find("-------", 0, 2000)
    if head >= 0:
        text = text[head + 7 :]
    return re.sub(r"\n{3,}", "\n\n", text.replace("\r\n", "\n").strip())


def _top_folder(archive: zipfile.ZipFile) -> str:
    """GitHub puts everything into one folder named after repository and commit."""
    names = archive.namelist()
    return names[0].split("/")[0] + "/" if names else ""
