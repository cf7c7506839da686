"""What is written into a shard is read from it, up to the vocabulary's last token."""

import tempfile
from pathlib import Path

import numpy as np

from nano_llama.data.shards import DocumentTable, Shard, token_dtype, write_shard


def test_the_last_token_fits():
    for size in (2, 256, 32_767, 32_768, 40_000, 65_535, 65_536, 65_537, 70_000, 131_072, 256_000):
        stored = int(np.array([size - 1], np.int64).astype(token_dtype(size))[0])
        assert stored == size - 1, f"in a vocabulary of {size:,} token {size - 1:,} is stored as {stored:,}"


def test_a_shard_comes_back():
    for size in (40_000, 65_536, 65_537, 100_000):
        ids = np.array([0, 1, size // 2, size - 2, size - 1], np.int64)
        table = DocumentTable(np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.uint64), ["a"])
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "0.shard"
            write_shard(file, ids.astype(token_dtype(size)), table, num_bytes=9, vocab_size=size)
            found = Shard(file).tokens.astype(np.int64)
        assert found.tolist() == ids.tolist(), f"vocabulary of {size:,}: {ids.tolist()} comes back as {found.tolist()}"


def test_small_vocabularies_stay_small():
    assert token_dtype(65_536).itemsize == 2, "65,536 ids fit into two bytes"
