"""Local files -> documents: .txt .md .py .jsonl .parquet, each also as .gz or .zst.

Not here: which files make a corpus (sources.py). Tests: tests/data/test_readers.py.

    .txt            one document, or several with <|endoftext|> between them (TinyStories)
    .md .py         the file is one document
    .jsonl          a document per line: its field "text"
    .parquet        a document per row: its column "text", of any type that holds text

Text is UTF-8 and kept as it is (but for a byte order mark). Bytes that are not UTF-8 are refused with their offset: a
wrong guess would be trained on. Empty documents are skipped.
"""

import gzip
import io
import json
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import IO, Any

from nano_llama.core.errors import FormatError, UserError

TEXT_SUFFIXES = (".txt", ".md", ".py")
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".parquet")
COMPRESSED = (".gz", ".zst")

END_OF_TEXT = "<|endoftext|>"  # between the documents of a .txt; in `backquotes` it is ordinary text
_SEPARATOR = re.compile(rb"(?<!`)<\|endoftext\|>|<\|endoftext\|>(?!`)")
_READ_BYTES = 2**24

MAX_TEXT_BYTES = 2**30  # one document is held in memory as a whole
MAX_ZSTD_WINDOW = 2**31  # the format's own limit (zstd --long=31); memory is taken as text fills it
MAX_LINE_BYTES = 256 * 2**20  # of a .jsonl file
ONE_A_LINE = "Each line holds one whole object. From a JSON array:  jq -c '.[]' IN.json > OUT.jsonl"
MAX_PARQUET_BYTES = 2 * 2**30  # a compressed .parquet is unpacked in memory first


@dataclass(frozen=True)
class Document:
    """A text with a name that is unique within its source."""

    name: str
    text: str


def kind_of(path: PurePath) -> str:
    """The suffix that decides how a file is read (".jsonl" for "a.jsonl.gz"); empty if it is not read here."""
    name = path.name.lower()
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    suffix = Path(name).suffix
    return suffix if suffix in SUFFIXES else ""


def read_documents(path: Path, name: str) -> Iterator[Document]:
    """The documents of one file, in its order; several in one file are called `name:0`, `name:1`, ...

    Raises UserError if the file cannot be opened, FormatError (naming file and place) if its content is not what its
    name says.
    """
    kind = kind_of(path)
    with _read_errors(path):
        if kind in TEXT_SUFFIXES:
            yield from _read_text(path, name, separated=kind == ".txt")
        elif kind == ".jsonl":
            yield from _read_jsonl(path, name)
        elif kind == ".parquet":
            yield from _read_parquet(path, name)
        else:
            raise UserError(
                f"{path}: files of this kind are not read.",
                hint=f"Give one of {' '.join(SUFFIXES)} (also {' '.join(COMPRESSED)}), or a folder with such files.",
            )


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Errors of the operating system and of unpacking, explained."""
    try:
        yield
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise FormatError(f"{path}: not a valid .gz file ({error}).") from error
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}.", hint="Check the path and its permissions."
        ) from error
    except (EOFError, zlib.error) as error:
        raise FormatError(f"{path}: the .gz file is cut off or damaged ({error}).") from error
    except MemoryError as error:
        raise UserError(
            f"{path}: too large for this machine's memory.", hint="Split it into several smaller files in one folder."
        ) from error


def _read_text(path: Path, name: str, separated: bool) -> Iterator[Document]:
    """The file as one document, or the several that END_OF_TEXT separates, without the separator's own lines."""
    first: str | None = None
    count = 0
    with _open(path) as file:
        for offset, data, is_cut in _stretches(file, path, separated):
            text = _decode(data, str(path), offset)
            if not (text.strip() if is_cut else text):
                continue
            count += 1
            if count == 1:
                first = text
                continue
            if first is not None:
                yield Document(f"{name}:0", first)
                first = None
            yield Document(f"{name}:{count - 1}", text)
    if first is not None:
        yield Document(name, first)


def _stretches(file: IO[bytes], path: Path, separated: bool) -> Iterator[tuple[int, bytes, bool]]:
    """Offset and bytes of each document, and whether a separator is next to it."""
    buffer = bytearray()
    offset = 0  # of the buffer in the file
    searched = 0  # up to here no separator begins in the buffer
    after = False  # the buffer begins after a separator
    more = True
    while more:
        data = file.read(_READ_BYTES)
        more = bool(data)
        buffer += data
        start = 0
        for found in _SEPARATOR.finditer(buffer, searched) if separated else ():
            if found.end() == len(buffer) and more:  # what follows decides
                break
            yield _trimmed(offset + start, bytes(buffer[start : found.start()]), after, True)
            start, after = found.end(), True
        del buffer[:start]
        offset += start
        searched = max(0, len(buffer) - len(END_OF_TEXT) - 1)
        if len(buffer) > MAX_TEXT_BYTES:
            raise FormatError(
                f"{path}: more than {MAX_TEXT_BYTES:,} bytes of text in one document.",
                hint=f"Split it into several files in one folder, put {END_OF_TEXT} between its documents, or write it"
                " as .jsonl with a document per line.",
            )
    yield _trimmed(offset, bytes(buffer), after, False)


def _trimmed(offset: int, data: bytes, after: bool, before: bool) -> tuple[int, bytes, bool]:
    """Without the line ends towards a separator, which are the separator's."""
    inner = data.lstrip(b"\r\n") if after else data
    offset += len(data) - len(inner)
    return offset, inner.rstrip(b"\r\n") if before else inner, after or before


def read_records(path: Path) -> Iterator[tuple[int, Any]]:
    """The lines of a .jsonl file that are not blank: the number of each, from 1, and what it holds.

    Raises UserError if the file cannot be opened, FormatError (naming file and line) for a line that is not JSON.
    """
    with _read_errors(path), _open(path) as file:
        number = 0
        while line := file.readline(MAX_LINE_BYTES + 1):
            number += 1
            where = f"{path}, line {number}"
            if len(line) > MAX_LINE_BYTES:
                raise FormatError(f"{where}: longer than {MAX_LINE_BYTES:,} bytes.")
            if not line.strip():
                continue
            try:
                record = _mended(json.loads(_decode(line, where)))
            except (ValueError, RecursionError) as error:
                # its text would count lines from this one: "line 1 column 9", or "line 2" for what ends too early
                cause = f"{error.msg} at column {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
                raise FormatError(f"{where}: not JSON ({cause}).", hint=ONE_A_LINE) from error
            yield number, record


def _read_jsonl(path: Path, name: str) -> Iterator[Document]:
    for number, record in read_records(path):
        if not isinstance(record, dict) or not isinstance(record.get("text"), str):
            hint = 'Each line holds one object: {"text": "..."}'
            raise FormatError(f'{path}, line {number}: no string field "text" (found {_found(record)}).', hint=hint)
        if record["text"]:
            yield Document(f"{name}:{number - 1}", record["text"])


def _mended(value: Any) -> Any:
    """The strings in it with `_mend_surrogates`."""
    if isinstance(value, str):
        return _mend_surrogates(value)
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(item) for key, item in value.items()}
    return value


def _found(record: Any) -> str:
    """What was found in place of a document."""
    if not isinstance(record, dict):
        return f"a {type(record).__name__}"
    if "text" in record:
        return f'"text": {json.dumps(record["text"])[:40]}'
    return f"fields {sorted(record)[:8]}"


def _read_parquet(path: Path, name: str) -> Iterator[Document]:
    import pyarrow
    import pyarrow.parquet

    source: Any = path
    if path.suffix.lower() in COMPRESSED:
        with _open(path) as packed:
            data = _read_at_most(packed, MAX_PARQUET_BYTES + 1)
        if len(data) > MAX_PARQUET_BYTES:
            raise FormatError(f"{path}: unpacks to more than {MAX_PARQUET_BYTES:,} bytes.", hint="Unpack it first.")
        source = io.BytesIO(data)
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(source) as file:
            columns = file.schema_arrow.names
            if "text" not in columns:
                raise FormatError(f'{path}: no column "text" (found {columns[:8]}).', hint='Name the column "text".')
            kind = file.schema_arrow.field("text").type
            if not _holds_text(kind):
                raise FormatError(f'{path}: the column "text" holds {kind}, not strings.', hint="Convert it first.")
            for batch in file.iter_batches(batch_size=16, columns=["text"]):
                for value in batch.column(0):
                    text = value.as_py()
                    if isinstance(text, bytes):
                        text = text.decode()
                    if text:
                        yield Document(f"{name}:{row}", text)
                    row += 1
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}, row {row}: not UTF-8 ({error}).") from error
    except (pyarrow.ArrowException, OverflowError) as error:  # OSError, for damaged pages, is caught above us
        raise _bad_parquet(path, error) from error
    except OSError as error:
        if error.errno is None:  # Arrow's "Couldn't deserialize thrift", "Corrupt snappy compressed data", ...
            raise _bad_parquet(path, error) from error
        raise


def _holds_text(kind: Any) -> bool:
    """Strings of every size, views of them, bytes (files of before Parquet knew strings), and categories of these."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _holds_text(kind.value_type)
    if hasattr(kind, "storage_type"):  # an extension, JSON for example
        return _holds_text(kind.storage_type)
    strings = types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    plain_bytes = types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)
    return strings or plain_bytes or types.is_null(kind)


def _bad_parquet(path: Path, error: BaseException) -> FormatError:
    return FormatError(
        f"{path}: not a valid .parquet file ({_first_line(error)}).",
        hint="Is it complete? Fetch it again, or remove it from the folder.",
    )


def _read_at_most(file: IO[bytes], count: int) -> bytes:
    """As file.read(count), which would allocate it all at once."""
    pieces = []
    while count and (piece := file.read(min(count, 2**24))):
        pieces.append(piece)
        count -= len(piece)
    return b"".join(pieces)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked on the way where its name says so."""
    suffix = path.suffix.lower()
    if suffix == ".gz":
        with gzip.open(path, "rb") as file:
            yield file  # type: ignore[misc]
    elif suffix == ".zst":
        with path.open("rb") as raw:
            yield io.BufferedReader(_ZstdReader(raw, path), 2**20)
    else:
        with path.open("rb") as file:
            yield file


class _ZstdReader(io.RawIOBase):
    """Unpacks frame after frame, and raises if the last one is cut off, where the library's own reader just ends."""

    def __init__(self, packed: IO[bytes], path: Path):
        self.packed, self.path = packed, path
        self.frame: Any = None  # the frame being unpacked
        self.fed = b""  # packed bytes that belong to the next frame
        self.ready = memoryview(b"")  # unpacked bytes not yet read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        import zstandard

        while not self.ready:
            data = self.fed or self.packed.read(2**13)  # a little at a time: a bomb unpacks 30,000 to 1
            self.fed = b""
            if not data:
                if self.frame is not None:
                    raise FormatError(f"{self.path}: the .zst file is cut off.")
                return 0
            if self.frame is None:
                self.frame = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW).decompressobj()
            try:
                self.ready = memoryview(self.frame.decompress(data))
            except zstandard.ZstdError as error:
                raise self.explained(error) from error
            if self.frame.eof:
                self.fed, self.frame = self.frame.unused_data, None
        count = min(len(buffer), len(self.ready))
        buffer[:count] = self.ready[:count]
        self.ready = self.ready[count:]
        return count

    def explained(self, error: Exception) -> UserError:
        """The library's error, explained."""
        if "memory" in str(error):
            return UserError(
                f"{self.path}: unpacking it needs more memory than this machine has ({error}).",
                hint="It was packed with a long window. Unpack it where there is memory:  zstd -d --long=31 FILE",
            )
        if "ictionary" in str(error):
            return FormatError(
                f"{self.path}: it was packed with a dictionary, which is in a separate file ({error}).",
                hint="Unpack it first:  zstd -d -D DICTIONARY FILE",
            )
        return FormatError(f"{self.path}: not a valid .zst file ({error}).")


def _decode(data: bytes, where: str, offset: int = 0) -> str:
    """offset: of `data` in its file."""
    if b"\0" in data:
        raise FormatError(
            f"{where}: a zero byte at offset {offset + data.index(0):,}: this looks like binary data, not text.",
            hint="Text is expected in UTF-8. Give text files, or a folder (other files in it are skipped).",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{where}: not UTF-8 (byte 0x{data[error.start]:02x} at offset {offset + error.start:,}).",
            hint="Convert it first, for example:  iconv -f latin1 -t utf-8 IN > OUT",
        ) from error


def _mend_surrogates(text: str) -> str:
    r"""JSON can spell half a character (a lone "\ud83d", common where scrapers cut strings); UTF-8 cannot: U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
