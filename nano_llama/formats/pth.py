"""PyTorch's own checkpoint file, .pth: a zip that holds a pickle of the structure and one raw file per storage.

    archive/data.pkl     {"model": {name: tensor, ...}, "config": {...}}, its tensors pointing at storages by number
    archive/data/0 ...   the numbers, uncompressed, so that they can be mapped from the disk
    archive/version, archive/byteorder

A pickle is a program, and an archive can unpack to terabytes. So before torch sees the file, its zip must be stored
uncompressed within the file's size, and every function that its pickle calls must be on a short list. Only then does
torch.load(weights_only=True, mmap=True) read it.

torch is imported inside the functions. Tests: tests/formats/test_pth.py.
"""

import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, UserError, import_extra
from nano_llama.core.files import atomic_path
from nano_llama.formats.dtypes import DTYPES, FLOATS, HF_NAMES, cast, dtype_name, float_name
from nano_llama.formats.hf_config import config_from_hf
from nano_llama.formats.mapping import TensorMapping, as_mapping
from nano_llama.formats.safetensors import contiguous_bytes, saved_dtype

_MAX_PICKLE_BYTES = 2**19  # an 8B model's takes 40 kB
_MAX_ENTRIES = 20_000
_MODEL_KEYS = ("model", "state_dict", "model_state_dict")  # where checkpoints in the wild keep their tensors
_PREFIXES = ("_orig_mod.", "module.")  # left by torch.compile and DistributedDataParallel

# What torch.save calls the storage of a type.
_STORAGES = {
    "F64": "Double", "F32": "Float", "F16": "Half", "BF16": "BFloat16",
    "I64": "Long", "I32": "Int", "I16": "Short", "I8": "Char", "U8": "Byte", "BOOL": "Bool",
}  # fmt: skip
# What a pickle of tensors, numbers and strings calls. torch's own list is longer; some of its entries allocate.
_HARMLESS = frozenset(
    ["collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size"]
    + [f"torch {kind}Storage" for kind in _STORAGES.values()]
    + [f"torch {HF_NAMES[kind]}" for kind in FLOATS]  # a config may hold its dtype
)
_LITERALS = ("GLOBAL", "BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1")
_NEVER_WRITTEN = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "GET", "PUT")


class PthFile(TensorMapping):
    """The tensors of a .pth file, mapped from the disk; `config` where the file holds one.

    Raises FormatError for a damaged, hostile, compressed or pre-2020 file, EnvironmentFault without torch.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        torch = import_extra("torch", "train", "Reading a .pth file")
        _check_archive(self.path)
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:  # torch raises a dozen kinds, none documented
            raise FormatError(f"{self.path}: torch cannot load it ({_first_line(error)}).") from error
        if not isinstance(content, dict):
            raise FormatError(f"{self.path} holds a {type(content).__name__}, not a dictionary of tensors.")
        if isinstance(content.get("config"), dict):
            if not _is_plain(content["config"]):
                raise FormatError(f"{self.path}: its config holds more than numbers, strings and lists of them.")
            self.known_config = config_from_hf(content["config"], source=f"{self.path} (config)")
        inner = next((content[key] for key in _MODEL_KEYS if isinstance(content.get(key), dict)), content)
        self._tensors = self._checked(inner)

    def _checked(self, found: Mapping[Any, Any]) -> dict[str, Any]:
        import torch

        size = self.path.stat().st_size
        tensors: dict[str, Any] = {}
        for key, tensor in found.items():
            if not isinstance(key, str) or not isinstance(tensor, torch.Tensor):
                raise FormatError(
                    f"{self.path}: the entry {key!r:.80} is a {type(tensor).__name__}, not a tensor.",
                    hint=f"A dictionary of tensors is read, at the top or under one of: {', '.join(_MODEL_KEYS)}.",
                )
            if tensor.layout != torch.strided or tensor.device.type != "cpu":
                raise FormatError(f"{self.path}: {key!r:.80} is not a plain dense tensor.")
            if tensor.numel() * tensor.element_size() > size:  # strides of 0 can make 4 bytes look like terabytes
                raise FormatError(
                    f"{self.path}: {key!r:.80} of shape {tuple(tensor.shape)} is larger than the file ({size:,} bytes)."
                )
            name = key
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            tensors[name] = tensor.detach()
        if not tensors:
            raise FormatError(f"{self.path} holds no tensors.")
        return tensors

    def __getitem__(self, name: str) -> np.ndarray:
        import torch

        tensor = self._tensors[name].contiguous()
        if tensor.dtype == torch.bfloat16:  # NumPy has no such type: hand the bits over
            array = tensor.view(torch.int16).numpy().view(DTYPES["BF16"])
        else:
            array = tensor.numpy()
        array.flags.writeable = False
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype_name(self, name: str) -> str:
        torch_name = str(self._tensors[name].dtype).removeprefix("torch.")
        return "BF16" if torch_name == "bfloat16" else dtype_name(torch_name)

    def nbytes(self, name: str) -> int:
        return self._tensors[name].nbytes

    def close(self) -> None:
        self._tensors = {}


def _is_plain(value: Any, depth: int = 0) -> bool:
    """What JSON could hold, and torch's dtypes: a pickle may put a tensor where a config has a number, or a dictionary
    into itself."""
    import torch

    if isinstance(value, dict | list | tuple):
        keys, items = (value.keys(), value.values()) if isinstance(value, dict) else ((), value)
        return (
            depth < 8
            and all(isinstance(key, str) for key in keys)
            and all(_is_plain(item, depth + 1) for item in items)
        )
    return value is None or isinstance(value, bool | int | float | str | torch.dtype)


def _check_archive(path: Path) -> None:
    """Refuse what torch.load should not see: see the module's header."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if file.read(4) != b"PK\x03\x04":
                raise FormatError(
                    f"{path} is not a .pth file as torch writes them since 1.6 (a zip).",
                    hint="If it is an older one that you trust, load and save it again with torch.",
                )
            _check_directory_size(path, file, size)
            with zipfile.ZipFile(file) as archive:
                _check_entries(path, archive, size)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, struct.error, OverflowError) as error:
        raise FormatError(f"{path}: its zip archive is damaged ({_first_line(error)}).") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}.") from error


def _check_directory_size(path: Path, file: IO[bytes], size: int) -> None:
    """The archive must end with its end record, as torch writes it: then every reader sees the same directory."""
    tail_size = min(size, 22 + 20 + 56)  # end record; before it, in large archives, the 64-bit locator and end record
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    end = tail[-22:]
    if len(end) < 22 or end[:4] != b"PK\x05\x06" or end[20:] != b"\0\0":
        raise FormatError(f"{path}: the end of its zip archive is missing.", hint="Was a download or copy cut short?")
    directory_size = int.from_bytes(end[12:16], "little")
    if tail[-42:-38] == b"PK\x06\x07":
        directory_size = max(directory_size, int.from_bytes(tail[40:48], "little"))
    if directory_size > 300 * _MAX_ENTRIES:
        raise FormatError(f"{path}: its zip directory claims {directory_size:,} bytes.")


def _check_entries(path: Path, archive: zipfile.ZipFile, size: int) -> None:
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise FormatError(f"{path}: {len(entries):,} files in its archive; at most {_MAX_ENTRIES:,} are read.")
    ends = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise FormatError(
                f"{path}: {entry.filename!r:.80} is compressed, {entry.compress_size:,} bytes to {entry.file_size:,};"
                " torch never writes that."
            )
        if entry.header_offset < ends or entry.header_offset + entry.file_size > size:
            raise FormatError(f"{path}: {entry.filename!r:.80} overlaps another part of the archive, or its end.")
        ends = entry.header_offset + entry.file_size
    if len({entry.filename for entry in entries}) != len(entries):
        raise FormatError(f"{path}: a file name occurs twice in its archive.")
    pickles = [entry for entry in entries if entry.filename.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(f"{path}: a zip archive, but not torch's: it holds {len(pickles)} files data.pkl, not 1.")
    if pickles[0].file_size > _MAX_PICKLE_BYTES:
        raise FormatError(
            f"{path}: a data.pkl of {pickles[0].file_size:,} bytes; at most {_MAX_PICKLE_BYTES:,} are read."
        )
    folder = pickles[0].filename.removesuffix("data.pkl") + "data/"
    storages = {entry.filename.removeprefix(folder): entry.file_size for entry in entries}
    _check_pickle(path, archive.read(pickles[0]), storages)


def _check_pickle(path: Path, program: bytes, storages: Mapping[str, int]) -> None:
    """Walk through the pickle without running it: only harmless calls, and no storage larger than its file.

    storages: key -> bytes. torch itself does not compare a storage's size with what the pickle claims.
    """
    # What each instruction pushes, where that is a literal; `recent` leaves out the memo's instructions.
    recent: list[Any] = []
    memo: dict[Any, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(program):
            name = opcode.name
            if name == "GLOBAL" and argument not in _HARMLESS:
                raise FormatError(
                    f"{path}: its pickle calls {str(argument).replace(' ', '.')!r:.120}, which no checkpoint of plain"
                    " tensors needs.",
                    hint="Do not load it by other means unless you trust its author; ask for safetensors instead.",
                )
            if name in _NEVER_WRITTEN or (name == "PROTO" and argument != 2):
                raise FormatError(f"{path}: its pickle uses {name} {argument or ''}, which torch.save never writes.")
            if name == "BINPERSID":
                _check_storage(path, recent[-7:], storages)
            if name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = recent[-1] if recent else None
            elif name in ("BINGET", "LONG_BINGET"):
                recent.append(memo.get(argument))
            else:
                recent.append(argument if name in _LITERALS else name)
    except FormatError:
        raise
    except Exception as error:  # genops raises whatever its decoders raise
        raise FormatError(f"{path}: its pickle is damaged ({_first_line(error)}).") from error


def _check_storage(path: Path, recent: list[Any], storages: Mapping[str, int]) -> None:
    """The instructions before a storage: MARK "storage" class key device count TUPLE."""
    kinds = {f"torch {storage}Storage": DTYPES[kind].itemsize for kind, storage in _STORAGES.items()}
    if len(recent) == 7 and recent[:2] == ["MARK", "storage"] and recent[6] == "TUPLE" and recent[2] in kinds:
        key, count = recent[3], recent[5]
        if isinstance(key, str) and isinstance(count, int) and storages.get(key) == count * kinds[recent[2]]:
            return
    raise FormatError(f"{path}: its pickle names the storage {recent[2:6]!r:.120}, which is not in the archive so.")


def save_pth(
    path: str | Path,
    weights: Mapping[str, np.ndarray],
    config: LlamaConfig | None = None,
    dtype: str | None = None,
) -> None:
    """Write {"model": {name: tensor}, "config": {...}} as torch.save would, but tensor by tensor.

    torch.load(path, weights_only=True) reads it. Without a config the tensors are at the top level, a plain state dict.
    dtype as in save_hf. Raises UserError, EnvironmentFault.
    """
    import_extra("torch", "train", "Writing a .pth file")
    source = as_mapping(weights)
    wanted = None if dtype is None else float_name(dtype)
    stored = {name: saved_dtype(source, name, wanted) for name in source}
    tensors = OrderedDict(
        (name, _TensorStub(str(key), stored[name], source.shape(name))) for key, name in enumerate(source)
    )
    content = tensors if config is None else {"model": tensors, "config": config.to_hf_dict()}
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        with archive.open(_entry(archive, "data.pkl"), "w") as file:
            _Pickler(file, protocol=2).dump(content)
        archive.writestr(_entry(archive, "byteorder"), b"little")
        for key, name in enumerate(source):
            entry = _entry(archive, f"data/{key}")
            with archive.open(entry, "w", force_zip64=True) as file:
                file.write(contiguous_bytes(cast(name, source[name], stored[name])))
        archive.writestr(_entry(archive, "version"), b"3\n")


class _TensorStub:
    """Stands for a tensor whose numbers are written elsewhere; pickles as torch pickles a tensor."""

    def __init__(self, key: str, dtype: str, shape: tuple[int, ...]):
        self.key, self.dtype, self.shape = key, dtype, shape

    def __reduce__(self) -> Any:
        from torch._utils import _rebuild_tensor_v2

        strides = tuple(int(np.prod(self.shape[axis + 1 :])) for axis in range(len(self.shape)))
        return _rebuild_tensor_v2, (_StorageStub(self), 0, self.shape, strides, False, OrderedDict())


class _StorageStub:
    def __init__(self, tensor: _TensorStub):
        self.tensor = tensor


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        """torch finds a storage by ("storage", its class, key, device, count of numbers)."""
        if not isinstance(obj, _StorageStub):
            return None
        import torch

        storage_class = getattr(torch, _STORAGES[obj.tensor.dtype] + "Storage")
        return ("storage", storage_class, obj.tensor.key, "cpu", int(np.prod(obj.tensor.shape)))


def _entry(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """A zip entry whose data starts at a multiple of 64 bytes, through padding in the header's extra field."""
    entry = zipfile.ZipInfo(f"archive/{name}")
    start = archive.fp.tell() + 30 + len(entry.filename)  # type: ignore[union-attr]
    start += 20 if name.startswith("data/") else 0  # the extra field with 64-bit sizes
    entry.extra = b"FB" + struct.pack("<H", (-start - 4) % 64) + b"Z" * ((-start - 4) % 64)
    return entry


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
