"""Damaged and forged shards and descriptions: each ends in an error of ours that names file and cause."""

import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from nano_llama.core.errors import FormatError, UserError
from nano_llama.data.dataset import Dataset, open_dataset, seal
from nano_llama.data.prepare import prepare
from nano_llama.data.shards import DocumentTable, Shard, write_shard

TOKENS = np.arange(1000, dtype="<u2") % 300


@pytest.fixture
def shard(tmp_path) -> Path:
    path = tmp_path / "train-00000.bin"
    table = DocumentTable(np.array([0, 10, 500]), np.array([1, 2, 3]), np.array([7, 8, 9], np.uint64), ["a", "b", "c"])
    write_shard(path, TOKENS, table, 4000, 300)
    return path


def sealed(raw: bytes) -> bytes:
    """A forger knows how to compute both checksums."""
    head = raw[:56] + hashlib.sha256(raw[256:]).digest() + raw[88:224]
    return head + hashlib.sha256(head).digest() + raw[256:]


def put(raw: bytes, place: int, form: str, *values) -> bytes:
    return raw[:place] + struct.pack(form, *values) + raw[place + struct.calcsize(form) :]


TABLE = 256 + 2000

ON_OPENING = {
    "empty": (lambda raw: b"", "not a token shard"),
    "some other file": (lambda raw: b"PK\x03\x04" + raw, "not a token shard"),
    "shorter than a header": (lambda raw: raw[:200], "not a token shard"),
    "the header alone": (lambda raw: raw[:256], "the file has 256"),
    "cut in the tokens": (lambda raw: raw[:1000], "the file has 1,000"),
    "one byte short": (lambda raw: raw[:-1], "the file has"),
    "one byte more": (lambda raw: raw + b"\0", "the file has"),
    "zeros": (lambda raw: bytes(len(raw)), "not a token shard"),
    "a newer version": (lambda raw: sealed(put(raw, 8, "<I", 2)), "version 2"),
    "version 0": (lambda raw: sealed(put(raw, 8, "<I", 0)), "version 0"),
    "3 bytes per token": (lambda raw: sealed(put(raw, 12, "<I", 3)), "3 bytes per token"),
    "4 bytes per token": (lambda raw: sealed(put(raw, 12, "<I", 4)), "the file has"),
    "2^63 tokens": (lambda raw: sealed(put(raw, 16, "<Q", 2**63)), "impossible"),
    "2^47 tokens": (lambda raw: sealed(put(raw, 16, "<Q", 2**47)), "the file has"),
    "one token more": (lambda raw: sealed(put(raw, 16, "<Q", 1004)), "the file has"),
    "2^64-1 documents": (lambda raw: sealed(put(raw, 24, "<Q", 2**64 - 1)), "impossible"),
    "2^40 documents": (lambda raw: sealed(put(raw, 24, "<Q", 2**40)), "the file has"),
    "2^63 bytes of names": (lambda raw: sealed(put(raw, 40, "<Q", 2**63)), "impossible"),
}

ON_THE_TABLE = {
    "starts fall": (lambda raw: sealed(put(raw, TABLE, "<Q", 50)), "out of order"),
    "a start beyond the tokens": (lambda raw: sealed(put(raw, TABLE + 16, "<Q", 1001)), "out of order"),
    "a start of 2^64-1": (lambda raw: sealed(put(raw, TABLE + 16, "<Q", 2**64 - 1)), "out of order"),
    "an endless document": (lambda raw: sealed(put(raw, TABLE + 24, "<Q", 2**60)), "impossible length"),
    "names for fewer documents": (lambda raw: sealed(raw[:-5] + b"a b\nc"), "2 names for 3"),
    "names for more documents": (lambda raw: sealed(raw[:-5] + b"\n\n\n\n\n"), "6 names for 3"),
}


@pytest.mark.parametrize("kind", ON_OPENING)
def test_refused_on_opening(shard, kind):
    damage, cause = ON_OPENING[kind]
    shard.write_bytes(damage(shard.read_bytes()))
    with pytest.raises(FormatError, match=cause) as error:
        Shard(shard)
    assert shard.name in str(error.value)


@pytest.mark.parametrize("kind", ON_THE_TABLE)
def test_refused_when_documents_are_asked_for_and_by_verify(shard, kind):
    damage, cause = ON_THE_TABLE[kind]
    shard.write_bytes(damage(shard.read_bytes()))
    for ask in (lambda: Shard(shard).documents(), lambda: Shard(shard).verify()):
        with pytest.raises(FormatError, match=cause) as error:
            ask()
        assert shard.name in str(error.value)


def test_a_token_outside_the_vocabulary(shard):
    shard.write_bytes(sealed(put(shard.read_bytes(), 300, "<H", 300)))
    with pytest.raises(FormatError, match="token 300 in a vocabulary of 300"):
        Shard(shard).verify()


def test_any_flipped_bit_of_the_header_is_seen_on_opening(shard):
    raw = shard.read_bytes()
    for bit in range(0, 256 * 8, 3):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        with pytest.raises(FormatError):
            Shard(shard)


def test_any_flipped_bit_is_seen_by_verify(shard):
    raw = shard.read_bytes()
    for bit in range(256 * 8, len(raw) * 8, 61):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        shard.write_bytes(damaged)
        with pytest.raises(FormatError, match="checksum"):
            Shard(shard).verify()


def test_a_shard_that_is_missing_or_a_folder(tmp_path):
    with pytest.raises(UserError, match="No such file"):
        Shard(tmp_path / "none.bin")
    with pytest.raises(UserError, match="Cannot read"):
        Shard(tmp_path)


# -- the dataset around the shards --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("good")
    (folder / "text.txt").write_text("the quick brown fox jumps over the lazy dog. " * 60)
    prepare(folder / "text.txt", "char", folder / "data", shard_bytes=500)
    return folder / "data"


@pytest.fixture
def dataset(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "data"))


def rewrite(folder: Path, change) -> None:
    """Change dataset.json and seal it anew."""
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    content.pop("checksum")
    (folder / "dataset.json").write_text(json.dumps({**seal(content), "format": content["format"]}))


def setting(*path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


FORGED = {
    "tokens": (setting("splits", "train", 0, "tokens", value=501), "not the shard that is described"),
    "documents": (setting("splits", "val", 0, "documents", value=2), "not the shard that is described"),
    "bytes": (setting("splits", "train", 1, "bytes", value=-1), "not the shard that is described"),
    "sha256": (setting("splits", "train", 1, "sha256", value="0" * 64), "not the shard that is described"),
    "a path outside": (setting("splits", "train", 0, "file", value="../../etc/passwd"), "not called train-00000.bin"),
    "no shards": (setting("splits", "val", value=[]), "no shards for the split 'val'"),
    "shards as text": (setting("splits", "val", value="abc"), "no shards for the split 'val'"),
    "a shard as a number": (setting("splits", "val", 0, value=5), "shard 0 of 'val'"),
    "splits as a list": (setting("splits", value=[1, 2]), "no shards for the split 'train'"),
    "vocabulary of text": (setting("tokenizer", "vocab_size", value="27"), "vocabulary size '27'"),
    "another vocabulary": (setting("tokenizer", "vocab_size", value=500), "made for a vocabulary of"),
    "a separator that is no id": (setting("tokenizer", "separator", value=10**9), "separator 1000000000"),
    "no tokenizer": (setting("tokenizer", value=None), "does not name its tokenizer"),
    "no origin": (setting("made_from", value=[]), "does not say what it was made from"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_description_is_refused(dataset, kind):
    change, cause = FORGED[kind]
    rewrite(dataset, change)
    with pytest.raises(FormatError, match=cause) as error:
        open_dataset(dataset)
    assert str(dataset) in str(error.value)


def test_a_description_of_another_format(dataset):
    content = json.loads((dataset / "dataset.json").read_text())
    for text in (json.dumps({**content, "format": "nano-llama dataset 2"}), "[]", "{", "null", "{}", "\xff"):
        (dataset / "dataset.json").write_text(text, encoding="latin1")
        with pytest.raises(FormatError, match=r"dataset\.json"):
            open_dataset(dataset)


def test_any_flipped_bit_of_the_description_is_seen(dataset):
    raw = (dataset / "dataset.json").read_bytes()
    for bit in range(0, len(raw) * 8, 7):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        (dataset / "dataset.json").write_bytes(damaged)
        try:
            opened = open_dataset(dataset)
        except FormatError:
            continue
        assert json.loads(damaged) == json.loads(raw), "white space may change, meaning may not"
        assert isinstance(opened, Dataset)


def test_shards_that_are_missing_swapped_or_exchanged(dataset):
    first, second = dataset / "train-00000.bin", dataset / "train-00001.bin"
    saved = first.read_bytes()
    first.write_bytes(second.read_bytes())
    with pytest.raises(FormatError, match=r"train-00000\.bin is not the shard"):
        open_dataset(dataset)
    first.write_bytes(saved[:-8])
    with pytest.raises(FormatError, match=r"train-00000\.bin"):
        open_dataset(dataset)
    first.unlink()
    with pytest.raises(UserError, match=r"train-00000\.bin"):
        open_dataset(dataset)


def test_verify_names_the_shard_in_which_a_bit_is_flipped(dataset):
    path = dataset / "val-00000.bin"
    raw = bytearray(path.read_bytes())
    raw[300] ^= 1
    path.write_bytes(raw)
    opened = open_dataset(dataset)  # not seen yet: opening reads the headers only
    opened.train.verify()
    with pytest.raises(FormatError, match=r"val-00000\.bin.*checksum"):
        opened.verify()


def test_another_tokenizer_than_the_one_that_made_the_shards(dataset):
    path = dataset / "tokenizer" / "tokenizer.json"
    path.write_text(path.read_text().replace('"q"', '"Q"'))
    opened = open_dataset(dataset)
    for ask in (lambda: opened.tokenizer, opened.verify):
        with pytest.raises(FormatError, match="not the tokenizer that made these shards"):
            ask()


def test_folders_that_are_no_dataset(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match="is not a dataset"):
            open_dataset(folder)
