"""Units are decided by the documents alone, and a unit's shard holds them with their separators."""

import hashlib

import numpy as np
import pytest

from nano_llama.data import units
from nano_llama.data.encode import make_encoder
from nano_llama.data.readers import Document
from nano_llama.data.shards import Shard
from nano_llama.data.units import document_parts, plan_units, write_unit
from nano_llama.tokenizer import Tokenizer

WORDS = "the cat sat on the mat and äte a fish "


def test_units_close_when_they_are_full():
    documents = [Document(str(i), "x" * size) for i, size in enumerate([4, 4, 4, 9, 1, 1])]
    found = [(unit.file, [part.name for part in unit.parts]) for unit in plan_units(documents, "val", 8)]
    # A document longer than a unit comes in parts: the last of document 3 is its ninth x.
    assert found == [
        ("val-00000.bin", ["0", "1"]),
        ("val-00001.bin", ["2", "3"]),
        ("val-00002.bin", [None, "4", "5"]),
    ]


def test_a_long_document_is_parts_of_one():
    document = Document("long", WORDS * 50)
    parts = document_parts(document, 300)
    assert "".join(part.text for part in parts) == document.text
    assert [part.name for part in parts] == ["long"] + [None] * (len(parts) - 1)
    assert [part.ends for part in parts] == [False] * (len(parts) - 1) + [True]
    utf8 = document.text.encode()
    assert sum(part.num_bytes for part in parts) == parts[0].document_bytes == len(utf8)
    assert parts[0].digest == int.from_bytes(hashlib.blake2b(utf8, digest_size=8).digest(), "little")


@pytest.mark.parametrize("with_separator", [True, False])
def test_shards_hold_the_documents_in_order_wherever_the_units_end(tmp_path, monkeypatch, with_separator):
    monkeypatch.setattr(units, "PART_CHARACTERS", 200)
    documents = [Document(f"d{i}", WORDS * (1 + i * 7 % 23)) for i in range(12)]
    if with_separator:
        tokenizer = Tokenizer.train_bpe([WORDS], 280)
    else:
        tokenizer = Tokenizer.train_char(WORDS)
    end = [] if tokenizer.eos_id is None else [tokenizer.eos_id]
    assert bool(end) == with_separator
    expected = [tokenizer.encode(document.text, add_bos=False) + end for document in documents]
    row, starts, names, lengths, files = [], [], [], [], []
    for unit in plan_units(documents, "train", 500):
        write_unit(tmp_path, unit, make_encoder(tokenizer), tokenizer.vocab_size, tokenizer.eos_id)
        shard = Shard(tmp_path / unit.file)
        shard.verify()
        assert shard.header.num_bytes == unit.num_bytes and shard.header.num_documents == unit.num_documents
        table = shard.documents()
        starts += (table.starts + len(row)).tolist()
        names += table.names
        lengths += table.text_bytes.tolist()
        row += shard.tokens.tolist()
        files.append(unit.file)
    assert len(files) > 5
    assert row == [token for ids in expected for token in ids]
    assert starts == np.cumsum([0] + [len(ids) for ids in expected[:-1]]).tolist()
    assert names == [document.name for document in documents]
    assert lengths == [len(document.text.encode()) for document in documents]
