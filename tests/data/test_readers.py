"""Every kind of local file, whole, compressed, empty, damaged, hostile."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from nano_llama.core.errors import FormatError, UserError
from nano_llama.data import readers
from nano_llama.data.readers import kind_of, read_documents

TEXT = "Grüße, 世界! 😀\r\nsecond line\n"
RECORDS = [{"text": "one"}, {"text": ""}, {"id": 3, "text": "drei ä"}]


def jsonl(records) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def parquet(table: dict, **options) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(table), sink, **options)
    return sink.getvalue().to_pybytes()


PACK = {"": lambda data: data, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(write_checksum=True).compress}


def read(tmp_path, name: str, data: bytes) -> list[tuple[str, str]]:
    path = tmp_path / name
    path.write_bytes(data)
    return [(document.name, document.text) for document in read_documents(path, name)]


@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("suffix", [".txt", ".md", ".py"])
def test_a_text_file_is_one_document_as_it_stands(tmp_path, suffix, packing):
    name = f"a{suffix}{packing}"
    assert read(tmp_path, name, PACK[packing](TEXT.encode())) == [(name, TEXT)]


@pytest.mark.parametrize("packing", PACK)
def test_jsonl(tmp_path, packing):
    name = f"a.jsonl{packing}"
    assert read(tmp_path, name, PACK[packing](jsonl(RECORDS) + b"\n")) == [
        (f"{name}:0", "one"),
        (f"{name}:2", "drei ä"),
    ]


@pytest.mark.parametrize("packing", PACK)
def test_parquet(tmp_path, packing):
    texts = [f"document {i}" for i in range(50)]
    data = parquet({"title": texts, "text": [*texts[:20], None, "", *texts[22:]]}, row_group_size=7)
    name = f"a.parquet{packing}"
    kept = [*range(20), *range(22, 50)]
    assert read(tmp_path, name, PACK[packing](data)) == [(f"{name}:{i}", texts[i]) for i in kept]


def test_suffixes_are_read_in_any_case_and_others_refused(tmp_path):
    assert kind_of(tmp_path / "A.JSONL.GZ") == ".jsonl"
    assert kind_of(tmp_path / "a.tar.gz") is None
    assert kind_of(tmp_path / "README") is None
    with pytest.raises(UserError, match=r"not read") as error:
        read(tmp_path, "a.pdf", b"%PDF")
    assert ".parquet" in str(error.value)


def test_empty_files_have_no_documents(tmp_path):
    for name, data in [
        ("a.txt", b""),
        ("a.jsonl", b""),
        ("a.txt.gz", gzip.compress(b"")),
        ("a.parquet", parquet({"text": []})),
    ]:
        if name.endswith("parquet"):
            data = parquet({"text": pa.array([], pa.string())})
        assert read(tmp_path, name, data) == []


def test_a_byte_order_mark_goes(tmp_path):
    assert read(tmp_path, "a.txt", b"\xef\xbb\xbfhi") == [("a.txt", "hi")]


def test_a_single_line_of_50_megabytes(tmp_path):
    ((_, text),) = read(tmp_path, "a.txt", b"ab " * 17_000_000)
    assert len(text) == 51_000_000
    ((_, text),) = read(tmp_path, "a.jsonl", jsonl([{"text": "x" * 50_000_000}]))
    assert len(text) == 50_000_000


def test_several_zstd_frames_and_gzip_members_are_one_text(tmp_path):
    for packing in (".gz", ".zst"):
        data = PACK[packing](b"one ") + PACK[packing](b"two")
        assert read(tmp_path, f"a.txt{packing}", data) == [(f"a.txt{packing}", "one two")]


def test_half_a_character_in_json_is_replaced(tmp_path):
    data = rb'{"text": "a\ud83d b\ud83d\ude00 c\udc00"}'
    assert read(tmp_path, "a.jsonl", data) == [("a.jsonl:0", "a\ufffd b😀 c\ufffd")]


NOISE = os.urandom(3000)
BIG = jsonl([{"text": "words and more words " * 40} for _ in range(400)])
GOOD_PARQUET = parquet({"text": ["a" * 500, "b" * 500] * 20}, compression="snappy")

DAMAGED = {
    "noise.txt": (b"\x00" + NOISE, "binary"),
    "latin1.txt": ("café".encode("latin1"), "0xe9 at offset 3"),
    "utf16.txt": ("text".encode("utf-16"), "binary|UTF-8"),
    "latin1.md.gz": (gzip.compress("café".encode("latin1")), "offset 3"),
    "noise.txt.gz": (NOISE, r"\.gz"),
    "cut.txt.gz": (gzip.compress(NOISE)[:-40], r"\.gz"),
    "cut.jsonl.gz": (gzip.compress(BIG)[:-9], r"\.gz"),
    "flipped.txt.gz": (gzip.compress(NOISE)[:1500] + b"XXXX" + gzip.compress(NOISE)[1504:], r"\.gz"),
    "noise.txt.zst": (NOISE, r"\.zst"),
    "cut.txt.zst": (PACK[".zst"](BIG)[:-3], r"\.zst file is cut off"),
    "cut.jsonl.zst": (PACK[".zst"](BIG)[:-3], r"\.zst file is cut off"),
    "tail.txt.zst": (PACK[".zst"](b"fine") + b"junk", r"\.zst"),
    "flipped.txt.zst": (PACK[".zst"](b"a" * 50 + NOISE)[:-1] + b"\x00", r"\.zst"),
    "noise.jsonl": (b"\xff\xfe" + NOISE.replace(b"\0", b""), "line 1"),
    "cut.jsonl": (b'{"text": "a"}\n{"text": "b', "line 2: not JSON"),
    "deep.jsonl": (b"[" * 100_000, "line 1: not JSON"),
    "list.jsonl": (b'["text"]\n', "found a list"),
    "field.jsonl": (b'{"content": "a"}\n', "content"),
    "number.jsonl": (b'{"text": 5}\n', 'no string field "text"'),
    "noise.parquet": (NOISE, r"\.parquet"),
    "empty.parquet": (b"", r"\.parquet"),
    "cut.parquet": (GOOD_PARQUET[:-20], r"\.parquet"),
    "head.parquet": (GOOD_PARQUET[:40], r"\.parquet"),
    "flipped.parquet": (GOOD_PARQUET[:-60] + b"\xff" * 50 + GOOD_PARQUET[-10:], r"\.parquet"),
    "column.parquet": (parquet({"content": ["a"]}), "content"),
    "numbers.parquet": (parquet({"text": [1, 2]}), "int64"),
    "noise.parquet.gz": (gzip.compress(NOISE), r"\.parquet"),
    "latin1.parquet": (parquet({"text": pa.array([b"caf\xe9"]).cast(pa.string(), safe=False)}), "UTF-8"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_refused_by_name_and_cause(tmp_path, name):
    data, cause = DAMAGED[name]
    with pytest.raises(FormatError, match=cause) as error:
        read(tmp_path, name, data)
    assert name in str(error.value)


def test_files_that_cannot_be_opened(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        list(read_documents(tmp_path / "none.txt", "none.txt"))
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(UserError, match=r"folder\.txt"):
        list(read_documents(tmp_path / "folder.txt", "folder.txt"))


def test_what_is_too_large_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_TEXT_BYTES", 10_000_000)
    monkeypatch.setattr(readers, "MAX_LINE_BYTES", 1_000_000)
    monkeypatch.setattr(readers, "MAX_PARQUET_BYTES", 1_000_000)
    for packing in (".gz", ".zst"):
        bomb = PACK[packing](b"a" * 100_000_000)
        assert len(bomb) < 200_000
        with pytest.raises(FormatError, match="more than 10,000,000 bytes"):
            read(tmp_path, f"bomb.txt{packing}", bomb)
        with pytest.raises(FormatError, match="line 1: longer than"):
            read(tmp_path, f"bomb.jsonl{packing}", bomb)
        with pytest.raises(FormatError, match="unpacks to more"):
            read(tmp_path, f"bomb.parquet{packing}", bomb)
