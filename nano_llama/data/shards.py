"""The file format of a token shard: a checksummed header, then token ids to be memory-mapped, then their documents.

Tests: tests/data/test_shards.py, test_shards_hostile.py.

All numbers are little-endian.

    bytes 0..255    header: magic "NLSHARD\\0", version u32, bytes per token u32 (2 or 4), then u64 each: tokens,
                    documents, bytes of text, bytes of names, vocabulary size; SHA-256 of the body; zeros; and in the
                    last 32 bytes the SHA-256 of the header before them
    body            tokens        u16 or u32 each, padded with zeros to a multiple of 8 bytes
                    starts        u64 per document: the position of its first token in this shard
                    text bytes    u64 per document: its whole length in UTF-8, wherever it ends
                    digests       u64 per document: BLAKE2b-64 of its whole text, to find duplicates
                    names         UTF-8, one per line

A document that does not fit continues in the next shard, whose first tokens then belong to none of its own documents.
Opening checks the header, the exact length of the file and the starts; `verify()` reads everything.
"""

import hashlib
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.files import atomic_path

MAGIC = b"NLSHARD\0"
VERSION = 1
HEADER_BYTES = 256
_FIELDS = struct.Struct("<8sII5Q32s")  # 88 bytes
_MAX_COUNT = 2**48


@dataclass(frozen=True)
class ShardHeader:
    """The first 256 bytes of a shard."""

    token_bytes: int  # 2 or 4
    num_tokens: int
    num_documents: int  # that begin in this shard
    num_bytes: int  # of UTF-8 text that these tokens stand for
    name_bytes: int
    vocab_size: int
    body_sha256: bytes

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<u2" if self.token_bytes == 2 else "<u4")

    @property
    def table_start(self) -> int:
        """Where the tables of documents begin in the file."""
        return HEADER_BYTES + _padded(self.num_tokens * self.token_bytes)

    @property
    def file_bytes(self) -> int:
        return self.table_start + 3 * 8 * self.num_documents + self.name_bytes

    def pack(self) -> bytes:
        fields = _FIELDS.pack(
            MAGIC, VERSION, self.token_bytes, self.num_tokens, self.num_documents, self.num_bytes, self.name_bytes,
            self.vocab_size, self.body_sha256,
        )  # fmt: skip
        content = fields.ljust(HEADER_BYTES - 32, b"\0")
        return content + hashlib.sha256(content).digest()


@dataclass(frozen=True)
class DocumentTable:
    """The documents of a shard or a whole split, one entry each."""

    starts: np.ndarray  # (documents,) int64: position of the first token
    text_bytes: np.ndarray  # (documents,) int64
    digests: np.ndarray  # (documents,) uint64
    names: list[str]


def token_dtype(vocab_size: int) -> np.dtype:
    """The smallest token type: two bytes up to 65,536 ids."""
    return np.dtype("<u2" if vocab_size <= 2**16 else "<u4")


def write_shard(path: Path, tokens: np.ndarray, documents: DocumentTable, num_bytes: int, vocab_size: int) -> None:
    """Write a shard whole or not at all. tokens: (num_tokens,) of `token_dtype(vocab_size)`."""
    assert tokens.dtype == token_dtype(vocab_size), f"tokens are {tokens.dtype}, the vocabulary {vocab_size}"
    names = "\n".join(" ".join(name.splitlines()) for name in documents.names).encode("utf-8", "replace")
    parts = [
        tokens.tobytes(),
        bytes(_padded(tokens.nbytes) - tokens.nbytes),
        documents.starts.astype("<u8").tobytes(),
        documents.text_bytes.astype("<u8").tobytes(),
        documents.digests.astype("<u8").tobytes(),
        names,
    ]
    body = hashlib.sha256()
    for part in parts:
        body.update(part)
    header = ShardHeader(
        tokens.dtype.itemsize, len(tokens), len(documents.names), num_bytes, len(names), vocab_size, body.digest()
    )
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(header.pack())
        for part in parts:
            file.write(part)


def read_header(path: Path) -> ShardHeader:
    """The header of a shard. Raises FormatError where it is damaged or does not fit the file's length."""
    try:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"Cannot read the token shard {path}: {error.strerror or error}.", hint=_REMAKE) from error
    if len(raw) < HEADER_BYTES or raw[:8] != MAGIC:
        raise _damaged(path, f"not a token shard: it begins with {raw[:8]!r}")
    if hashlib.sha256(raw[:-32]).digest() != raw[-32:]:
        raise _damaged(path, "the header does not match its own checksum")
    _, version, token_bytes, *counts, body_sha256 = _FIELDS.unpack_from(raw)
    num_tokens, num_documents, num_bytes, name_bytes, vocab_size = counts
    if version != VERSION:
        raise _damaged(path, f"written in version {version} of the format; this program reads version {VERSION}")
    header = ShardHeader(token_bytes, num_tokens, num_documents, num_bytes, name_bytes, vocab_size, body_sha256)
    if token_bytes not in (2, 4) or max(counts) > _MAX_COUNT:
        raise _damaged(path, f"impossible numbers in the header: {token_bytes} bytes per token, counts {counts}")
    if header.file_bytes != size:
        raise _damaged(path, f"the header says {header.file_bytes:,} bytes, the file has {size:,}")
    return header


class Shard:
    """A shard opened for reading; its tokens stay on disk until they are used."""

    def __init__(self, path: Path):
        self.path = path
        self.header = read_header(path)
        count = self.header.num_tokens
        self.tokens: np.ndarray  # (num_tokens,) read-only
        if count:
            mapped = np.memmap(path, self.header.dtype, "r", offset=HEADER_BYTES, shape=(count,))
            self.tokens = mapped.view(np.ndarray)  # slices of a plain array are ten times as fast
        else:  # nothing can be mapped
            self.tokens = np.zeros(0, self.header.dtype)

    def documents(self) -> DocumentTable:
        """The table of documents. Raises FormatError where the starts are out of order or the names do not fit."""
        count, header = self.header.num_documents, self.header
        with self.path.open("rb") as file:
            file.seek(header.table_start)
            table = np.fromfile(file, "<u8", 3 * count)
            names = file.read(header.name_bytes)
        if len(table) != 3 * count or len(names) != header.name_bytes:
            raise _damaged(self.path, "the file became shorter while it was read")
        starts, text_bytes, digests = table.reshape(3, count)
        if count and (starts[-1] > header.num_tokens or np.any(starts[1:] < starts[:-1])):
            raise _damaged(self.path, "the documents' starts are out of order")
        if np.any(text_bytes > _MAX_COUNT):
            raise _damaged(self.path, "a document of impossible length")
        listed = names.decode("utf-8", "replace").split("\n") if count else []
        if len(listed) != count:
            raise _damaged(self.path, f"{len(listed)} names for {count} documents")
        return DocumentTable(starts.astype(np.int64), text_bytes.astype(np.int64), digests.astype(np.uint64), listed)

    def verify(self) -> None:
        """Read the whole file. Raises FormatError where a bit has changed or an id is out of range."""
        body = hashlib.sha256()
        with self.path.open("rb") as file:
            file.seek(HEADER_BYTES)
            while chunk := file.read(2**20):
                body.update(chunk)
        if body.digest() != self.header.body_sha256:
            raise _damaged(self.path, "the content does not match its checksum")
        if len(self.tokens) and int(self.tokens.max()) >= self.header.vocab_size:
            raise _damaged(self.path, f"token {int(self.tokens.max())} in a vocabulary of {self.header.vocab_size}")
        self.documents()


_REMAKE = "Remove its folder and prepare the data again."


def _damaged(path: Path, cause: str) -> FormatError:
    return FormatError(f"{path}: {cause}.", hint=_REMAKE)


def _padded(count: int) -> int:
    return (count + 7) // 8 * 8
