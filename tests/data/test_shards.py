"""A shard comes back as it was written, by a reader that is not ours too."""

import hashlib
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nano_llama.data.shards import DocumentTable, Shard, token_dtype, write_shard


def table(starts, names) -> DocumentTable:
    count = len(names)
    return DocumentTable(
        np.array(starts, np.int64), np.arange(1, count + 1), np.arange(count, dtype=np.uint64) * 2**60, list(names)
    )


@pytest.mark.parametrize(("vocab_size", "itemsize"), [(2, 2), (65_536, 2), (65_537, 4), (200_000, 4)])
def test_tokens_take_two_bytes_where_they_fit(tmp_path, vocab_size, itemsize):
    tokens = np.array([0, 1, vocab_size - 1], token_dtype(vocab_size))
    write_shard(tmp_path / "s.bin", tokens, table([0], ["a"]), 3, vocab_size)
    shard = Shard(tmp_path / "s.bin")
    assert shard.tokens.dtype.itemsize == itemsize
    assert shard.tokens.tolist() == [0, 1, vocab_size - 1]
    shard.verify()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip(tmp_path_factory, data):
    count = data.draw(st.integers(0, 50))
    tokens = np.array(data.draw(st.lists(st.integers(0, 999), min_size=count, max_size=count)), "<u2")
    starts = sorted(data.draw(st.lists(st.integers(0, count), max_size=8)))
    names = [data.draw(st.text(st.characters(codec="utf-8"), max_size=10)) for _ in starts]
    path = tmp_path_factory.mktemp("shard") / "s.bin"
    write_shard(path, tokens, table(starts, names), 1234, 1000)
    shard = Shard(path)
    shard.verify()
    assert shard.header.num_bytes == 1234 and shard.header.vocab_size == 1000
    assert np.array_equal(shard.tokens, tokens)
    documents = shard.documents()
    assert documents.starts.tolist() == starts
    assert documents.names == [" ".join(name.splitlines()) for name in names]
    assert documents.text_bytes.tolist() == list(range(1, len(starts) + 1))
    assert documents.digests.tolist() == [i * 2**60 % 2**64 for i in range(len(starts))]


def test_the_bytes_are_those_that_the_documentation_tells(tmp_path):
    """Read by struct alone, from the description in shards.py."""
    path = tmp_path / "s.bin"
    write_shard(path, np.array([5, 6, 7, 8, 9], "<u2"), table([0, 3], ["ä", "b"]), 77, 300)
    raw = path.read_bytes()
    magic, version, width, tokens, documents, text, names, vocab = struct.unpack_from("<8sII5Q", raw)
    assert (magic, version, width, tokens, documents, text, names, vocab) == (b"NLSHARD\0", 1, 2, 5, 2, 77, 4, 300)
    assert raw[56:88] == hashlib.sha256(raw[256:]).digest()
    assert raw[224:256] == hashlib.sha256(raw[:224]).digest()
    assert raw[88:224] == bytes(136)
    assert raw[256:272] == struct.pack("<5H6x", 5, 6, 7, 8, 9)
    assert raw[272:320] == struct.pack("<6Q", 0, 3, 1, 2, 0, 2**60)
    assert raw[320:] == "ä\nb".encode()


def test_tokens_stay_on_disk_and_cannot_be_written(tmp_path):
    write_shard(tmp_path / "s.bin", np.arange(10, dtype="<u2"), table([0], ["a"]), 10, 300)
    tokens = Shard(tmp_path / "s.bin").tokens
    assert isinstance(tokens.base, np.memmap) and not tokens.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        tokens[0] = 1


def test_the_same_content_gives_the_same_bytes_and_nothing_is_left_beside(tmp_path):
    for name in ("a.bin", "b.bin"):
        write_shard(tmp_path / name, np.arange(10, dtype="<u2"), table([0], ["a"]), 10, 300)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "b.bin"]


def test_our_own_mistake_is_an_assertion(tmp_path):
    with pytest.raises(AssertionError):
        write_shard(tmp_path / "s.bin", np.arange(10, dtype="<u4"), table([0], ["a"]), 10, 300)
