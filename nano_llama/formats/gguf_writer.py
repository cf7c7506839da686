"""Writing GGUF: header, metadata, tensor table, then the tensors one after the other.

Not here: which keys and tensors a model has (gguf.py, gguf_config.py). The layout is drawn in gguf_reader.py.
Tests: tests/formats/test_gguf.py.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.core.files import atomic_path
from nano_llama.formats.gguf_quants import row_bytes
from nano_llama.formats.gguf_reader import ARRAY, BOOL, F32, I32, NUMBERS, STRING, U32, U64
from nano_llama.formats.kinds import Kind

_ALIGNMENT = 32
_KIND_OF_DTYPE = {dtype: kind for kind, dtype in NUMBERS.items()}


@dataclass(frozen=True)
class PlannedTensor:
    """A tensor to be written. `make` is called when its turn comes and gives its stored bytes, as an array."""

    name: str
    kind: str
    shape: tuple[int, ...]
    make: Callable[[], np.ndarray]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape[:-1]) * row_bytes(self.kind, self.shape[-1])


def write_gguf(
    path: str | Path,
    metadata: Mapping[str, Any],
    tensors: Sequence[PlannedTensor],
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a GGUF of version 3; at most one tensor is in memory. Raises UserError for a value GGUF has no type for.

    check: is handed the file that was written before it takes its name; where it raises there is none.
    """
    with atomic_path(path) as temporary:
        _write(temporary, metadata, tensors)
        check(temporary)


def _write(path: Path, metadata: Mapping[str, Any], tensors: Sequence[PlannedTensor]) -> None:
    with path.open("wb") as file:
        file.write(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
        for key, value in metadata.items():
            file.write(_string(key) + _typed(key, value))
        offset = 0
        for tensor in tensors:
            file.write(_string(tensor.name) + struct.pack("<I", len(tensor.shape)))
            file.write(struct.pack(f"<{len(tensor.shape)}Q", *reversed(tensor.shape)))
            file.write(struct.pack("<IQ", Kind[tensor.kind].number, offset))
            offset += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        _pad(file)
        for tensor in tensors:
            stored = np.ascontiguousarray(tensor.make()).reshape(-1).view(np.uint8)
            assert stored.nbytes == tensor.nbytes, f"{tensor.name}: {stored.nbytes} bytes, {tensor.nbytes} were planned"
            file.write(stored.data)
            _pad(file)


def _pad(file: IO[bytes]) -> None:
    file.write(b"\0" * (-file.tell() % _ALIGNMENT))


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _typed(key: str, value: Any) -> bytes:
    """Type number and value. Ints become u32 where they fit, floats f32, as llama.cpp expects of its keys."""
    if isinstance(value, str):
        return struct.pack("<I", STRING) + _string(value)
    if isinstance(value, np.ndarray | list | tuple):
        return struct.pack("<I", ARRAY) + _array(key, value)
    if isinstance(value, bool | np.bool_):
        return struct.pack("<I?", BOOL, value)
    if isinstance(value, int):
        kind = U32 if 0 <= value < 2**32 else (I32 if value < 0 else U64)
        return struct.pack("<I", kind) + np.array(value, NUMBERS[kind]).tobytes()
    if isinstance(value, np.generic) and value.dtype in _KIND_OF_DTYPE:
        return struct.pack("<I", _KIND_OF_DTYPE[value.dtype]) + value.tobytes()
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    raise UserError(f"GGUF has no type for {key} = {value!r:.80}.")


def _array(key: str, values: Any) -> bytes:
    if isinstance(values, np.ndarray) and values.dtype in _KIND_OF_DTYPE and values.ndim == 1:
        return struct.pack("<IQ", _KIND_OF_DTYPE[values.dtype], len(values)) + values.tobytes()
    types = {type(value) for value in values}
    if types <= {str}:  # an empty list counts as strings
        return struct.pack("<IQ", STRING, len(values)) + b"".join(map(_string, values))
    for kind, allowed in ((BOOL, {bool}), (I32, {int}), (F32, {float, int})):
        if types <= allowed:
            return struct.pack("<IQ", kind, len(values)) + np.array(values, NUMBERS[kind]).tobytes()
    raise UserError(f"GGUF has no type for {key}, a list of {', '.join(sorted(kind.__name__ for kind in types))}.")
