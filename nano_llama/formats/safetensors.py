"""safetensors: a JSON header with types, shapes and offsets, then the numbers.

    8 bytes   length of the header, little-endian
    header    {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [begin, end]}, ..., "__metadata__": {...}}
    data      every tensor's bytes, without gaps; offsets count from here

Not here: the index of shards (weight_files.py), the config and tokenizer beside such files (hf_folder.py).
Our own reader and writer rather than the library's: it maps bfloat16, checks every bound before touching the data, and
writes tensor by tensor.
Source of the format: the README of huggingface/safetensors. Tests: tests/formats/test_safetensors.py.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.errors import FormatError
from nano_llama.core.files import atomic_path
from nano_llama.formats.dtypes import DTYPES, cast
from nano_llama.formats.mapping import TensorMapping, as_mapping, map_file, release_mapped_pages, view

MAX_HEADER_BYTES = 2 * 2**20  # about 20,000 tensors; parsed JSON may take 40 times its text
_MAX_DIMENSIONS = 8


class SafetensorsFile(TensorMapping):
    """One .safetensors file. Raises FormatError, naming file and tensor, for anything the format forbids."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        mapped = map_file(self.path)
        header, self._data_start = _read_header(self.path, mapped)
        self.metadata: dict[str, str] = _checked_metadata(self.path, header.pop("__metadata__", {}))
        self._entries = _checked_entries(self.path, header, len(mapped) - self._data_start)
        self._mapped: Any = mapped

    def __getitem__(self, name: str) -> np.ndarray:
        dtype, shape, begin, _ = self._entries[name]
        if self._mapped is None:
            raise ValueError(f"{self.path} is closed")
        return view(self._mapped, self._data_start + begin, DTYPES[dtype], shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name][1]

    def dtype_name(self, name: str) -> str:
        return self._entries[name][0]

    def nbytes(self, name: str) -> int:
        _, _, begin, end = self._entries[name]
        return end - begin

    def release_pages(self) -> None:
        release_mapped_pages(self._mapped)

    def close(self) -> None:
        self._mapped = None  # the mapping itself is freed with the last array over it


def save_safetensors(
    path: str | Path,
    weights: Mapping[str, np.ndarray],
    *,
    names: Iterable[str] | None = None,
    dtype: str | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors one after the other; only one is in memory at a time.

    names: which tensors, default all. dtype: "F32", "F16" or "BF16"; None keeps each tensor's own (a quantized one,
    which this format cannot hold, becomes F32). metadata: strings for the header.
    """
    source = as_mapping(weights)
    stored = {name: saved_dtype(source, name, dtype) for name in (source if names is None else names)}
    # Wide types first, so that every tensor starts at a multiple of its item size.
    order = sorted(stored, key=lambda name: -DTYPES[stored[name]].itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    position = 0
    for name in order:
        shape = source.shape(name)
        end = position + math.prod(shape) * DTYPES[stored[name]].itemsize
        header[name] = {"dtype": stored[name], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in order:
            file.write(contiguous_bytes(cast(name, source[name], stored[name])))


def saved_dtype(source: TensorMapping, name: str, dtype: str | None) -> str:
    """The type in which a float format stores the tensor: `dtype`, else its own, else (quantized) F32."""
    own = source.dtype_name(name)
    return dtype or (own if own in DTYPES else "F32")


def contiguous_bytes(array: np.ndarray) -> memoryview:
    """The array's bytes in C order, without a copy where it is contiguous."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _read_header(path: Path, mapped: Any) -> tuple[dict[str, Any], int]:
    if len(mapped) < 8:
        raise FormatError(f"{path}: {len(mapped)} bytes are too few for a safetensors file.")
    length = int.from_bytes(mapped[:8], "little")
    if length > min(MAX_HEADER_BYTES, len(mapped) - 8):
        raise FormatError(
            f"{path}: its header claims {length:,} bytes; the file has {len(mapped):,}"
            f" and a header at most {MAX_HEADER_BYTES:,}.",
            hint="It is cut short, or not a safetensors file.",
        )
    try:
        header = json.loads(mapped[8 : 8 + length].decode(), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: its safetensors header is damaged ({error!s:.200}).") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: its safetensors header is a {type(header).__name__}, not an object.")
    return header, 8 + length


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _checked_metadata(path: Path, metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise FormatError(f"{path}: __metadata__ must map strings to strings.")
    return metadata


def _checked_entries(path: Path, header: dict[str, Any], size: int) -> dict[str, tuple[str, tuple[int, ...], int, int]]:
    """name -> (dtype, shape, begin, end), with every claim of the header checked against the file's size."""
    entries = {}
    for name, entry in header.items():
        where = f"{path}: tensor {name!r:.80}"
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise FormatError(f"{where} must have dtype, shape and data_offsets.")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise FormatError(f"{where} has the type {dtype!r:.80}, which is not read here.")
        if not _sizes(shape) or len(shape) > _MAX_DIMENSIONS:
            raise FormatError(f"{where} has the impossible shape {shape!r:.80}.")
        if not _sizes(offsets) or len(offsets) != 2 or not offsets[0] <= offsets[1] <= size:
            raise FormatError(f"{where} claims the bytes {offsets!r:.80} of {size:,}.", hint="Is the file cut short?")
        begin, end = offsets
        if math.prod(shape) * DTYPES[dtype].itemsize != end - begin:
            raise FormatError(f"{where}: {dtype} {shape!r:.80} does not fill its {end - begin:,} bytes.")
        entries[name] = (dtype, tuple(shape), begin, end)
    position = 0
    for name, (_, _, begin, end) in sorted(entries.items(), key=lambda item: item[1][2:]):
        if begin != position:
            raise FormatError(
                f"{path}: tensor {name!r:.80} starts at {begin:,}, the one before it ends at {position:,}."
            )
        position = end
    if position != size:
        raise FormatError(f"{path}: {size - position:,} bytes after the last tensor belong to none.")
    return entries


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(number) is int and 0 <= number < 2**62 for number in value)
