"""stdlib in place; shakespeare and classic-books from a loopback server, right and wrong."""

import csv
import hashlib
import io
import sysconfig
import zipfile
from pathlib import Path

import pytest

from nano_llama.core.errors import EnvironmentFault, FormatError
from nano_llama.data.builtin import ClassicBooks, Shakespeare, StandardLibrary, clean_book
from nano_llama.data.sources import open_source


def test_stdlib_is_this_pythons_own_source_without_tests_and_packages():
    source = StandardLibrary()
    train, val = ([document.name for document in source.documents(split)] for split in ("train", "val"))
    everything = {*train, *val}
    assert {"argparse.py", "json/decoder.py", "asyncio/tasks.py"} <= everything
    assert len(everything) == len(train) + len(val) > 400
    assert not [name for name in everything if {"test", "tests", "site-packages"} & set(Path(name).parts)]
    assert train == sorted(train)
    sizes = [len(document.text) for document in source.documents("val")]
    assert 20_000 < sum(sizes) < 2_000_000
    root = Path(sysconfig.get_path("stdlib"))
    document = next(document for document in source.documents("train") if document.name in ("argparse.py", "ast.py"))
    assert document.text == (root / document.name).read_bytes().decode()
    assert source.fingerprint() == StandardLibrary().fingerprint()


def test_a_python_without_sources(tmp_path):
    with pytest.raises(EnvironmentFault, match="keeps no"):
        StandardLibrary(tmp_path)


PLAY = b"First Citizen:\nBefore we proceed any further, hear me speak.\n\n" * 20


class SmallShakespeare(Shakespeare):
    sha256 = hashlib.sha256(PLAY).hexdigest()


def test_shakespeare_is_fetched_checked_cached_and_split(server, tmp_path):
    server.files["/input.txt"] = PLAY
    source = SmallShakespeare(url=server.url + "/input.txt", cache=tmp_path)
    cut = int(0.9 * len(PLAY))
    assert [document.text for document in source.documents("train")] == [PLAY[:cut].decode()]
    assert [document.text for document in source.documents("val")] == [PLAY[cut:].decode()]
    assert len(server.asked) == 1


def test_shakespeare_that_is_not_shakespeare(server, tmp_path):
    server.files["/input.txt"] = PLAY + b"Enter Godzilla."
    source = SmallShakespeare(url=server.url + "/input.txt", cache=tmp_path)
    with pytest.raises(FormatError, match="SHA-256"):
        next(source.documents("train"))


def test_offline_names_what_works_without_a_network(monkeypatch):
    monkeypatch.setenv("NANO_LLAMA_OFFLINE", "1")
    for name in ("shakespeare", "classic-books"):
        with pytest.raises(EnvironmentFault, match=name) as error:
            next(open_source(name).documents("train"))
        assert "--data stdlib" in str(error.value)


BOOKS = {  # as they lie in the archive: train but for the last
    "A. Author/First: A Book.md": "Title: First\n-------\n\n\n# I\r\n\r\n\r\n\r\nIt was.\n\n\n\n-------\nIt is.\n",
    "B. Bücher/Zwei.md": "\n## I\n\nOhne Kopf.\n \n\n",
    "C. Coda/Third.md": "x" * 1994 + "-------the rule comes too late",
}
CLEANED = {
    "A. Author/First: A Book.md": "# I\n\nIt was.\n\n-------\nIt is.",
    "B. Bücher/Zwei.md": "## I\n\nOhne Kopf.",
    "C. Coda/Third.md": BOOKS["C. Coda/Third.md"],
}


def archive(books: dict[str, str]) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("classic-books-markdown-9448827/", "")
        file.writestr("classic-books-markdown-9448827/README.md", "not a book")
        for name in sorted(books, reverse=True):
            file.writestr(f"classic-books-markdown-9448827/{name}", books[name].encode())
    return sink.getvalue()


@pytest.fixture
def books(server, tmp_path):
    """A function: archive bytes -> the source that finds them at the server."""
    manifest = tmp_path / "manifest.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "sha256", "split"])
        for name, text in CLEANED.items():
            split = "val" if name.startswith("C.") else "train"
            rows.writerow([name, hashlib.sha256(text.encode()).hexdigest(), split])

    def source(data: bytes) -> ClassicBooks:
        server.files["/books.zip"] = data
        return ClassicBooks(url=server.url + "/books.zip", cache=tmp_path / "cache", manifest=manifest)

    return source


def test_books_come_cleaned_in_the_manifests_order(books, server):
    source = books(archive(BOOKS))
    server.cut["/books.zip"] = 100
    found = [(d.name, d.text) for split in ("train", "val") for d in source.documents(split)]
    assert found == list(CLEANED.items())
    assert [range_ for _, range_ in server.asked] == [None, "bytes=100-"]


def test_cleaning():
    assert clean_book("head\n-------\nbody\r\n\r\n\r\n\r\nend\n") == "body\n\nend"
    late = "y" * 1993 + "-------"
    assert clean_book(late) == ""  # just within the first 2,000 characters
    assert clean_book("y" + late) == "y" + late


@pytest.mark.parametrize(
    "kind", ["a book is missing", "a book was changed", "not a zip", "cut off", "no UTF-8", "empty"]
)
def test_an_archive_that_is_not_the_commits(books, server, tmp_path, kind):
    data = archive(BOOKS)
    wrong = {
        "a book is missing": archive({name: text for name, text in BOOKS.items() if "Zwei" not in name}),
        "a book was changed": archive({**BOOKS, "B. Bücher/Zwei.md": "Ohne Hut."}),
        "not a zip": b"<html>Sign in to the hotel's network</html>",
        "cut off": data[:-30],
        "no UTF-8": archive(BOOKS).replace(b"classic", b"cl\xffssic"),
        "empty": archive({}),
    }[kind]
    source = books(wrong)
    with pytest.raises(FormatError) as error:
        list(source.documents("train"))
    assert str(error.value).count("\n") <= 1 and error.value.hint
    if kind == "a book was changed":
        assert "Zwei.md" in str(error.value)


def test_a_damaged_byte_in_the_cached_archive(books, tmp_path):
    source = books(archive(BOOKS))
    list(source.documents("train"))
    (path,) = (tmp_path / "cache").glob("*.zip")
    data = bytearray(path.read_bytes())
    place = data.index(b"Zwei.md") + 10
    data[place : place + 8] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(FormatError, match="Zwei") as error:
        list(source.documents("train"))
    assert str(path) in str(error.value)


def test_a_book_that_would_fill_the_memory(books):
    source = books(archive({**BOOKS, "B. Bücher/Zwei.md": "0" * 3_000_000}))
    source.max_book_bytes = 2_000_000
    with pytest.raises(FormatError, match="3,000,000 bytes"):
        list(source.documents("train"))


def test_the_manifest_that_is_committed():
    source = ClassicBooks()
    assert [sum(book["split"] == split for book in source.books) for split in ("train", "val")] == [732, 12]
    assert all(len(book["sha256"]) == 64 for book in source.books)
    assert len({book["path"] for book in source.books}) == 744
