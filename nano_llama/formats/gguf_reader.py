"""GGUF, llama.cpp's model file, read within bounds: header, metadata and tensor table over a mapped file.

    "GGUF"  version u32  number of tensors u64  number of metadata entries u64
    metadata      key, type u32, value         strings are a u64 length and UTF-8; arrays a type, a u64 count, values
    tensor table  name, u32 number of dimensions, u64 dimensions (fastest first), u32 type, u64 offset in the data
    data          starts at a multiple of `general.alignment`, as does every tensor

Every count, length and offset is checked against the file's size before it is trusted. Metadata of a 50k vocabulary
takes about 0.1 s.

Not here: what the metadata means (gguf_config.py), tensor names (gguf_names.py), blocks (gguf_quants.py).
Source of the format: docs/gguf.md of ggml-org/ggml. Tests: tests/formats/test_gguf_reader.py.
"""

import itertools
import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import FormatError
from nano_llama.formats.gguf_quants import row_bytes
from nano_llama.formats.kinds import BY_NUMBER, UNREAD, Kind
from nano_llama.formats.mapping import map_file, release_mapped_pages

MAX_ENTRIES = 65_536  # metadata entries, and tensors
MAX_STRINGS = 2**21  # in all arrays together; vocabularies have up to 300k tokens and as many merges
MAX_STRING_BYTES = 24 * 2**20  # in all strings together: while decoding, Python may need eight times that
_MAX_NAME_BYTES = 65_535
_MAX_NESTING = 4

# Type numbers of metadata values.
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
NUMBERS: dict[int, np.dtype] = {
    U8: np.dtype("u1"), I8: np.dtype("i1"), U16: np.dtype("<u2"), I16: np.dtype("<i2"), U32: np.dtype("<u4"),
    I32: np.dtype("<i4"), F32: np.dtype("<f4"), BOOL: np.dtype("?"), U64: np.dtype("<u8"), I64: np.dtype("<i8"),
    F64: np.dtype("<f8"),
}  # fmt: skip
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table."""

    name: str
    kind: Kind  # "F32", "Q4_1", ...
    shape: tuple[int, ...]  # slowest dimension first, as NumPy has it
    offset: int  # in the file
    nbytes: int


class GGUFFile:
    """A GGUF file's metadata and tensors. Raises FormatError, naming file and cause, for anything out of bounds.

    metadata: key -> int, float, bool, str, list of str, or a read-only array of numbers.
    tensors: name in the file -> TensorInfo.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        mapped = map_file(self.path)
        self.metadata: Mapping[str, Any]
        self.tensors: Mapping[str, TensorInfo]
        try:
            self.metadata, self.tensors = _Parser(mapped).parse()
        except _Bad as error:
            raise FormatError(f"{self.path}: {error}.", hint=error.hint) from None
        self._mapped: mmap.mmap | None = mapped

    def blocks(self, name: str) -> np.ndarray:
        """The tensor's bytes as they lie in the file: uint8 (rows, bytes of a row), read-only, mapped."""
        if self._mapped is None:
            raise ValueError(f"{self.path} is closed")
        info = self.tensors[name]
        rows = math.prod(info.shape[:-1])
        return np.frombuffer(self._mapped, np.uint8, info.nbytes, info.offset).reshape(rows, -1)

    def release_pages(self) -> None:
        """The pages read so far leave this process's memory."""
        release_mapped_pages(self._mapped)

    def close(self) -> None:
        self._mapped = None  # the mapping itself is freed with the last array over it


class _Bad(Exception):
    """What is wrong with the file; GGUFFile adds its name."""

    def __init__(self, message: str, hint: str = "Is the file damaged, or was a download cut short?"):
        super().__init__(message)
        self.hint = hint


class _Parser:
    """Reads the head of the file once, front to back; `position` is the next byte."""

    def __init__(self, mapped: mmap.mmap):
        self.data = mapped
        self.size = len(mapped)
        self.position = 0
        self.strings_left = MAX_STRINGS
        self.string_bytes_left = MAX_STRING_BYTES

    def parse(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        if self.take(4, "magic") != b"GGUF":
            raise _Bad("it does not begin with GGUF", hint="It is not a GGUF file.")
        version = self.u32("version")
        if version not in (2, 3):
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            cause = "is big-endian" if swapped in (2, 3) else f"has version {version}"
            raise _Bad(f"this GGUF {cause}; little-endian versions 2 and 3 are read", hint="Convert the model again.")
        num_tensors = self.count("number of tensors", at_least_bytes=24, limit=MAX_ENTRIES)
        num_entries = self.count("number of metadata entries", at_least_bytes=13, limit=MAX_ENTRIES)
        metadata: dict[str, Any] = {}
        for _ in range(num_entries):
            key = self.string("a metadata key", limit=_MAX_NAME_BYTES)
            if key in metadata:
                raise _Bad(f"the metadata key {key!r:.80} occurs twice")
            metadata[key] = self.value(self.u32(f"type of {key!r:.80}"), key)
        return metadata, self.tensor_table(num_tensors, metadata)

    def tensor_table(self, num_tensors: int, metadata: Mapping[str, Any]) -> dict[str, TensorInfo]:
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 65_536 or alignment & (alignment - 1):
            raise _Bad(f"general.alignment = {alignment!r:.80} is not a power of two up to 65,536")
        rows = [self.table_row() for _ in range(num_tensors)]
        data_start = -(-self.position // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, kind, shape, offset in rows:
            nbytes = math.prod(shape[:-1]) * row_bytes(kind, shape[-1])
            if offset % alignment:
                raise _Bad(f"tensor {name!r} starts at {offset:,}, not a multiple of the alignment {alignment}")
            if data_start + offset + nbytes > self.size:
                raise _Bad(
                    f"tensor {name!r} of shape {shape} ends at byte {data_start + offset + nbytes:,},"
                    f" but the file has {self.size:,}"
                )
            if name in tensors:
                raise _Bad(f"the tensor {name!r} occurs twice")
            tensors[name] = TensorInfo(name, kind, shape, data_start + offset, nbytes)
        in_file_order = sorted(tensors.values(), key=lambda info: info.offset)
        for before, after in itertools.pairwise(in_file_order):
            if before.offset + before.nbytes > after.offset:
                raise _Bad(f"the tensors {before.name!r} and {after.name!r} overlap")
        return tensors

    def table_row(self) -> tuple[str, Kind, tuple[int, ...], int]:
        name = self.string("a tensor's name", limit=_MAX_NAME_BYTES)
        dimensions = self.u32(f"number of dimensions of {name!r:.80}")
        if not 1 <= dimensions <= 4:
            raise _Bad(f"tensor {name!r:.80} has {dimensions} dimensions; 1 to 4 are possible")
        shape = tuple(self.u64(f"shape of {name!r:.80}") for _ in range(dimensions))[::-1]
        if not all(0 < size < 2**40 for size in shape):
            raise _Bad(f"tensor {name!r:.80} has the impossible shape {shape}")
        number = self.u32(f"type of {name!r:.80}")
        if number not in BY_NUMBER:
            unread = UNREAD.get(number, f"number {number}")
            known = ", ".join(Kind)
            raise _Bad(f"tensor {name!r:.80} has the type {unread}, which is not supported", hint=f"Known: {known}.")
        kind = BY_NUMBER[number]
        if shape[-1] % kind.block_size:
            raise _Bad(f"tensor {name!r:.80} has rows of {shape[-1]}, but {kind} comes in blocks of {kind.block_size}")
        return name, kind, shape, self.u64(f"offset of {name!r:.80}")

    # -- values -------------------------------------------------------------------------------------------------------

    def value(self, kind: int, key: str, nesting: int = 0) -> Any:
        if kind == STRING:
            return self.string(f"the value of {key!r:.80}")
        if kind in NUMBERS:
            raw = self.take(NUMBERS[kind].itemsize, f"the value of {key!r:.80}")
            return np.frombuffer(raw, NUMBERS[kind])[0].item() if kind != BOOL else raw != b"\0"
        if kind != ARRAY:
            raise _Bad(f"metadata {key!r:.80} has the unknown type {kind}")
        item_kind = self.u32(f"type of the items of {key!r:.80}")
        if item_kind in NUMBERS:
            dtype = NUMBERS[item_kind]
            count = self.count(f"length of {key!r:.80}", dtype.itemsize, limit=self.size)
            raw = self.take(count * dtype.itemsize, f"the items of {key!r:.80}")
            # any byte but 0 is true: NumPy's bool knows 0 and 1 only
            return np.frombuffer(raw, np.uint8) != 0 if item_kind == BOOL else np.frombuffer(raw, dtype)
        if item_kind not in (STRING, ARRAY) or nesting == _MAX_NESTING:
            raise _Bad(f"metadata {key!r:.80} is an array of the unknown type {item_kind}, or nested too deep")
        count = self.count(f"length of {key!r:.80}", at_least_bytes=8, limit=self.strings_left)
        self.strings_left -= count
        if item_kind == STRING:
            return self.strings(count, key)
        return [self.value(ARRAY, key, nesting + 1) for _ in range(count)]

    def strings(self, count: int, key: str) -> list[str]:
        """Vocabularies are large, so this loop is tight: local names, no function calls."""
        data, position, unpack, width = self.data, self.position, _U64.unpack_from, 8
        last = min(self.size, position + width * count + self.string_bytes_left)
        result = []
        try:
            for _ in range(count):
                start = position + width
                position = start + unpack(data, position)[0]
                if position > last:
                    raise _Bad(
                        f"the strings of {key!r:.80} run past the end of the file, or over {MAX_STRING_BYTES:,} bytes"
                    )
                result.append(data[start:position].decode())
        except (struct.error, UnicodeDecodeError) as error:
            raise _Bad(f"the strings of {key!r:.80} are damaged ({error!s:.100})") from None
        self.string_bytes_left -= position - self.position - width * count
        self.position = position
        return result

    def string(self, what: str, limit: int = MAX_STRING_BYTES) -> str:
        length = self.u64(f"length of {what}")
        if length > min(limit, self.string_bytes_left):
            raise _Bad(f"{what} claims {length:,} bytes")
        self.string_bytes_left -= length
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise _Bad(f"{what} is not UTF-8") from None

    def count(self, what: str, at_least_bytes: int, limit: int) -> int:
        """A count of items that take at least this many bytes each."""
        count = self.u64(what)
        if count > limit or count * at_least_bytes > self.size - self.position:
            raise _Bad(f"{what} is {count:,}, more than the file can hold or than is read here")
        return count

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def take(self, size: int, what: str) -> bytes:
        end = self.position + size
        if end > self.size:
            raise _Bad(f"it ends within {what}, at byte {self.size:,}")
        taken = self.data[self.position : end]
        self.position = end
        return taken
