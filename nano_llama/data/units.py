"""The units of work: a corpus cut into parts, each of which becomes one shard, whichever worker writes it.

Tests: tests/data/test_units.py.

A unit is defined by the documents' order and lengths alone. So the shards are the same bytes for any number of workers,
and a run that was killed continues with the units whose shards are missing.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nano_llama.data.encode import PART_CHARACTERS, Encoder, cut_text
from nano_llama.data.readers import Document
from nano_llama.data.shards import DocumentTable, token_dtype, write_shard


@dataclass(frozen=True)
class Part:
    """A document, or a part of a long one."""

    text: str
    num_bytes: int  # of this part in UTF-8
    name: str | None  # of the document that begins here; None: it began in an earlier part
    document_bytes: int = 0  # of the whole document that begins here
    digest: int = 0  # BLAKE2b-64 of the whole document that begins here
    ends: bool = True  # the document ends with this part


@dataclass(frozen=True)
class Unit:
    """The parts that one shard holds."""

    file: str
    parts: list[Part]

    @property
    def num_bytes(self) -> int:
        return sum(part.num_bytes for part in self.parts)

    @property
    def num_documents(self) -> int:
        return sum(part.name is not None for part in self.parts)


def plan_units(documents: Iterable[Document], split: str, shard_bytes: int) -> Iterator[Unit]:
    """Cut a split into units of at least `shard_bytes` of UTF-8, but for the last; named split-00000.bin and so on."""
    parts: list[Part] = []
    size = index = 0
    for document in documents:
        for part in document_parts(document, min(PART_CHARACTERS, shard_bytes)):
            parts.append(part)
            size += part.num_bytes
            if size >= shard_bytes:
                yield Unit(f"{split}-{index:05d}.bin", parts)
                parts, size, index = [], 0, index + 1
    if parts:
        yield Unit(f"{split}-{index:05d}.bin", parts)


def document_parts(document: Document, part_characters: int) -> list[Part]:
    whole = document.text.encode()
    digest = int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest(), "little")
    if len(document.text) <= part_characters:
        return [Part(document.text, len(whole), document.name, len(whole), digest)]
    texts = cut_text(document.text, part_characters)
    return [
        Part(
            text,
            len(text.encode()),
            document.name if i == 0 else None,
            len(whole) if i == 0 else 0,
            digest if i == 0 else 0,
            ends=i == len(texts) - 1,
        )
        for i, text in enumerate(texts)
    ]


def write_unit(folder: Path, unit: Unit, encode: Encoder, vocab_size: int, separator: int | None) -> None:
    """Tokenize a unit and write its shard. `separator`, the tokenizer's eos if it has one, follows each document."""
    encoded = encode([part.text for part in unit.parts])
    end = np.array([] if separator is None else [separator], token_dtype(vocab_size))
    pieces, starts, position = [], [], 0
    for part, tokens in zip(unit.parts, encoded, strict=True):
        if part.name is not None:
            starts.append(position)
        pieces += [tokens, end] if part.ends else [tokens]
        position += len(tokens) + (len(end) if part.ends else 0)
    beginning = [part for part in unit.parts if part.name is not None]
    table = DocumentTable(
        np.array(starts, np.int64),
        np.array([part.document_bytes for part in beginning], np.int64),
        np.array([part.digest for part in beginning], np.uint64),
        [part.name or "" for part in beginning],
    )
    write_shard(folder / unit.file, np.concatenate(pieces), table, unit.num_bytes, vocab_size)
