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
    assert kind_of(tmp_path / "a.tar.gz") == ""
    assert kind_of(tmp_path / "README") == ""
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


# -- documents within a .txt ------------------------------------------------------------------------------------------

STORIES = ["Once upon a time.", "The end:\n\n  indented, ü", "said `<|endoftext|>` as a word"]
SEPARATED = {
    "on its own line": "\n<|endoftext|>\n".join(STORIES),
    "with Windows' line ends": "\r\n<|endoftext|>\r\n".join(STORIES),
    "within the line": "<|endoftext|>".join(STORIES),
    "at the end of the line": "<|endoftext|>\n".join(STORIES),
    "before and after all": "<|endoftext|>\n" + "\n<|endoftext|>\n\n".join(STORIES) + "\n<|endoftext|>\n",
    "twice": "\n<|endoftext|>\n \n<|endoftext|>\n".join(STORIES),
}


@pytest.mark.parametrize("block", [1, 2, 7, 2**24])
@pytest.mark.parametrize("packing", PACK)
@pytest.mark.parametrize("form", SEPARATED)
def test_separated_documents_of_a_text(tmp_path, monkeypatch, form, packing, block):
    monkeypatch.setattr(readers, "_READ_BYTES", block)
    found = read(tmp_path, f"a.txt{packing}", PACK[packing](SEPARATED[form].encode()))
    assert found == [(f"a.txt{packing}:{i}", story) for i, story in enumerate(STORIES)]


def test_a_text_with_one_document_keeps_its_name(tmp_path):
    assert read(tmp_path, "a.txt", b"one\n<|endoftext|>\n") == [("a.txt", "one")]
    assert read(tmp_path, "a.txt", b"<|endoftext|>\n\n<|endoftext|>") == []
    assert read(tmp_path, "a.txt", b" \n") == [("a.txt", " \n")]


@pytest.mark.parametrize("suffix", [".md", ".py"])
def test_code_that_speaks_of_the_separator_is_one_document(tmp_path, suffix):
    text = "a = '<|endoftext|>'\n<|endoftext|>\n"
    assert read(tmp_path, f"a{suffix}", text.encode()) == [(f"a{suffix}", text)]


def test_the_size_limit_is_a_documents(tmp_path, monkeypatch):
    monkeypatch.setattr(readers, "MAX_TEXT_BYTES", 100)
    monkeypatch.setattr(readers, "_READ_BYTES", 64)
    story = "x" * 60 + "\n<|endoftext|>\n"
    assert len(read(tmp_path, "a.txt", story.encode() * 20)) == 20
    with pytest.raises(FormatError, match="in one document"):
        read(tmp_path, "a.txt", story.encode() + b"x" * 400)


def test_damage_behind_a_separator_has_its_place_in_the_file(tmp_path):
    before = "ä\n<|endoftext|>\n".encode()
    with pytest.raises(FormatError, match=f"0xe9 at offset {len(before) + 3}"):
        read(tmp_path, "a.txt", before + "café".encode("latin1"))
    with pytest.raises(FormatError, match=f"offset {len(before) + 1}: this looks like binary"):
        read(tmp_path, "a.txt", before + b"a\0b")


# -- text in every type of a Parquet column ---------------------------------------------------------------------------

VALUES = ["one", "zwei ü", None, "", "one", "😀"]
TYPES = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "string_view": pa.string_view(),
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "binary_view": pa.binary_view(),
    "json": pa.json_(pa.string()),
    "category": pa.dictionary(pa.int32(), pa.string()),
    "category of large strings": pa.dictionary(pa.int8(), pa.large_string()),
    "category of bytes": pa.dictionary(pa.int32(), pa.binary()),
}


def column(kind) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return column(kind.value_type).dictionary_encode()
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, column(kind.storage_type))
    holds_bytes = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
    return pa.array([value.encode() if holds_bytes and value is not None else value for value in VALUES], kind)


@pytest.mark.parametrize("arrow_schema", [True, False])
@pytest.mark.parametrize("name", TYPES)
def test_text_in_every_type_of_column(tmp_path, name, arrow_schema):
    """With Arrow's own schema in the file, as pandas and pyarrow write it, and without, as others do."""
    data = parquet({"text": column(TYPES[name])}, store_schema=arrow_schema, row_group_size=4)
    wanted = [(f"a.parquet:{i}", value) for i, value in enumerate(VALUES) if value]
    assert read(tmp_path, "a.parquet", data) == wanted


def test_a_column_without_a_value_has_no_documents(tmp_path):
    assert read(tmp_path, "a.parquet", parquet({"text": pa.nulls(3)})) == []


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, 2]).dictionary_encode(),
        pa.array([["a"], ["b"]]),
        pa.array([{"a": "b"}]),
        pa.array([1.5]),
        pa.array([True]),
        pa.array([b"abcd"], pa.binary(4)),
    ],
    ids=lambda values: str(values.type),
)
def test_a_column_of_something_else_is_refused(tmp_path, values):
    with pytest.raises(FormatError, match="not strings"):
        read(tmp_path, "a.parquet", parquet({"text": values}))


def test_bytes_that_are_no_text_are_refused(tmp_path):
    with pytest.raises(FormatError, match="row 1: not UTF-8"):
        read(tmp_path, "a.parquet", parquet({"text": pa.array([b"fine", b"\xff\xd8\xff"])}))


# -- every .zst that the format allows --------------------------------------------------------------------------------


@pytest.mark.parametrize("window_log", [10, 27, 28, 30, 31])
@pytest.mark.parametrize("whole", [True, False])
def test_zst_of_every_window(tmp_path, window_log, whole):
    how = zstandard.ZstdCompressionParameters.from_level(3, window_log=window_log, enable_ldm=True)
    data = b"hello world " * 5000
    packer = zstandard.ZstdCompressor(compression_params=how)
    stream = packer.compressobj()
    packed = packer.compress(data) if whole else stream.compress(data) + stream.flush()
    assert read(tmp_path, "a.txt.zst", packed) == [("a.txt.zst", data.decode())]


def test_zst_with_skippable_frames(tmp_path):
    """pzstd writes a frame's size into such a frame before it."""
    skip = (0x184D2A50).to_bytes(4, "little") + (4).to_bytes(4, "little") + b"size"
    packed = skip + PACK[".zst"](b"one ") + skip + PACK[".zst"](b"two") + skip
    assert read(tmp_path, "a.txt.zst", packed) == [("a.txt.zst", "one two")]


def test_zst_with_a_dictionary_says_what_it_needs(tmp_path):
    samples = [f"a sample of words, number {i}, and more words of it".encode() for i in range(500)]
    trained = zstandard.train_dictionary(4096, samples)
    packed = zstandard.ZstdCompressor(dict_data=trained).compress(samples[0] * 3)
    with pytest.raises(FormatError, match="dictionary") as caught:
        read(tmp_path, "a.txt.zst", packed)
    assert "zstd -d -D" in caught.value.hint
