"""TensorMapping: the read-only {name: array} that every weight file opens as.

A tensor is read from disk when it is asked for, and only the caller holds it, so a program that goes through an 8B
model tensor by tensor never holds the model. Shapes and types are known without reading. Names are those of
core/names.py, whatever the file calls them.

Not here: any file format; each has a module of its own. Tests: tests/formats/test_mapping.py.
"""

import mmap
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.init import check_params
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.formats.dtypes import FLOATS, dtype_name
from nano_llama.formats.kinds import WRITABLE_BLOCKS


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor as it is stored in the file. A row of `shape[-1]` numbers is a run of blocks, each with its scale."""

    kind: str  # "Q4_1", "Q8_0", ... also "F16": a block of one number
    shape: tuple[int, ...]  # of the numbers, (rows, columns) or (columns,)
    blocks: np.ndarray  # uint8 (rows, bytes of a row), read-only, mapped from the file


class TensorMapping(Mapping[str, np.ndarray]):
    """A read-only {name: array} over a file or folder at `path`; a context manager that closes it.

    A subclass gives __getitem__, __iter__, __len__, shape, dtype_name and nbytes. An array may be a read-only view of
    the mapped file: copy it before writing to it.
    """

    path: Path
    known_config: LlamaConfig | None = None  # the shape that the tensors were checked against, where the file says it

    @property
    def config(self) -> LlamaConfig:
        """The model's shape. Raises UserError where the file does not say it."""
        if self.known_config is None:
            raise unknown_shape(self.path)
        return self.known_config

    def shape(self, name: str) -> tuple[int, ...]:
        raise NotImplementedError

    def dtype_name(self, name: str) -> str:
        """The type in which the tensor is stored: "F32", "BF16", "Q4_1" ..."""
        raise NotImplementedError

    def nbytes(self, name: str) -> int:
        """Bytes the tensor takes as stored."""
        raise NotImplementedError

    def raw(self, name: str) -> QuantizedTensor:
        """The stored blocks, without dequantizing them. Raises UserError unless it is a GGUF or a quantized folder."""
        raise UserError(
            f"{self.path} has no quantized blocks for {name}.",
            hint="A GGUF file has, and a folder made by nano-llama quantize.",
        )

    def row_order(self, name: str) -> np.ndarray | None:
        """Row indices that bring `raw(name)` into this mapping's order: raw.blocks[order]. None: it is in order."""
        return None

    def release_pages(self) -> None:
        """Let the system reclaim the pages read so far; arrays stay valid, and are read again if used."""

    def close(self) -> None:
        """Close the file. Arrays already handed out stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self)} tensors)"


class Arrays(TensorMapping):
    """A plain dictionary of arrays, seen as a TensorMapping."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self.path = Path("(in memory)")
        self._arrays = arrays

    def __getitem__(self, name: str) -> np.ndarray:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._arrays[name].shape)

    def dtype_name(self, name: str) -> str:
        return dtype_name(self._arrays[name].dtype)

    def nbytes(self, name: str) -> int:
        return self._arrays[name].nbytes


class Selection(TensorMapping):
    """Tensors picked from other mappings: shards joined, a tied head or a buffer left out, a prefix added.

    name_of: what the sources call them, where that differs.
    """

    def __init__(self, path: Path, source_of: Mapping[str, TensorMapping], name_of: Mapping[str, str] | None = None):
        self.path = path
        self._source_of = dict(source_of)
        self._name_of = dict(name_of or {})

    def __getitem__(self, name: str) -> np.ndarray:
        return self._source_of[name][self._theirs(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._source_of)

    def __len__(self) -> int:
        return len(self._source_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._source_of[name].shape(self._theirs(name))

    def dtype_name(self, name: str) -> str:
        return self._source_of[name].dtype_name(self._theirs(name))

    def nbytes(self, name: str) -> int:
        return self._source_of[name].nbytes(self._theirs(name))

    def raw(self, name: str) -> QuantizedTensor:
        return self._source_of[name].raw(self._theirs(name))

    def row_order(self, name: str) -> np.ndarray | None:
        return self._source_of[name].row_order(self._theirs(name))

    def release_pages(self) -> None:
        for source in {id(source): source for source in self._source_of.values()}.values():
            source.release_pages()

    def close(self) -> None:
        for source in {id(source): source for source in self._source_of.values()}.values():
            source.close()

    def _theirs(self, name: str) -> str:
        return self._name_of.get(name, name)


def unknown_shape(path: Path) -> UserError:
    return UserError(f"{path} does not say its model's shape.", hint="Put its config.json beside it.")


def as_mapping(weights: Mapping[str, np.ndarray]) -> TensorMapping:
    """`weights` itself if it is a TensorMapping, else a view of it as one."""
    return weights if isinstance(weights, TensorMapping) else Arrays(weights)


def fit_to_config(weights: TensorMapping, config: LlamaConfig) -> TensorMapping:
    """The tensors of `weights` that `config` asks for, after checking that names and shapes agree.

    As in transformers, names may lack the leading "model." (a LlamaModel saved by itself) or have a wrapper's prefix,
    and a tensor that no part of a LLaMA would use is left out, with a warning. A tied model's file may store the head
    again: an equal copy is left out, a different one refused, because then either the config or the file is wrong.
    Old checkpoints also store RoPE's frequencies, which follow from the config. Raises FormatError.
    """
    theirs = _names_of_ours(weights)  # our name -> theirs
    if config.tie_word_embeddings and LM_HEAD in theirs:
        if EMBED not in theirs:
            theirs[EMBED] = theirs[LM_HEAD]
        elif not same_tensor(weights, theirs[EMBED], weights, theirs[LM_HEAD]):
            raise FormatError(
                f"{weights.path}: the config says tie_word_embeddings = true, but {LM_HEAD} is not {EMBED}.",
                hint='If the head is meant to be its own, set "tie_word_embeddings": false in config.json.',
            )
        del theirs[LM_HEAD]
    if len(theirs) < config.num_hidden_layers:  # before a hostile number of layers makes a list of names
        raise FormatError(
            f"{weights.path} holds {len(theirs)} tensors, too few for num_hidden_layers = {config.num_hidden_layers}.",
            hint="Do config and weights belong together?",
        )
    for name, stored in theirs.items():
        if weights.dtype_name(stored) not in (*FLOATS, *WRITABLE_BLOCKS):
            raise FormatError(f"{weights.path}: {name!r:.80} is stored as {weights.dtype_name(stored)}, not as floats.")
    if LM_HEAD not in theirs and not config.tie_word_embeddings and EMBED in theirs:
        raise FormatError(
            f"{weights.path} holds a model without its head: {LM_HEAD} is missing, and the config does not tie it.",
            hint='If the head is the embedding, set "tie_word_embeddings": true in config.json; else save the whole'
            " LlamaForCausalLM.",
        )
    chosen = weights
    if list(theirs.items()) != [(name, name) for name in weights]:
        chosen = Selection(weights.path, dict.fromkeys(theirs, weights), theirs)
    check_params(config, chosen, source=str(weights.path))
    chosen.known_config = config
    return chosen


# Prefixes of all names, left by torch.compile, DistributedDataParallel or a wrapper around the model.
WRAPPERS = ("_orig_mod.", "module.")
_PARTS = ("model.", "lm_head.")  # of a LlamaForCausalLM
_WITHOUT_PREFIX = ("embed_tokens.", "layers.", "norm.")  # of a LlamaModel


def _names_of_ours(weights: TensorMapping) -> dict[str, str]:
    """Our name of each tensor that belongs to the model -> the file's name of it."""
    theirs: dict[str, str] = {}
    strangers = []
    for stored in weights:
        name = stored
        while name.startswith(WRAPPERS):
            name = name.split(".", 1)[1]
        if name.startswith(_WITHOUT_PREFIX):
            name = "model." + name
        if name.endswith("rotary_emb.inv_freq"):
            continue
        if not name.startswith(_PARTS):
            strangers.append(stored)
        elif name in theirs:
            raise FormatError(f"{weights.path}: {stored!r:.80} and {theirs[name]!r:.80} are the same parameter.")
        else:
            theirs[name] = stored
    if theirs and strangers:
        shown = ", ".join(sorted(strangers)[:4]) + (f" and {len(strangers) - 4} more" if len(strangers) > 4 else "")
        warnings.warn(f"{weights.path}: {shown:.300} ignored: a LLaMA has no such part.", stacklevel=4)
    elif strangers:
        theirs = {name: name for name in strangers}  # another model's: check_params names what is wrong
    return theirs


def map_file(path: Path) -> mmap.mmap:
    """Map a file into memory, read-only. Raises UserError where it cannot be read, FormatError where it is empty."""
    try:
        with path.open("rb") as handle:
            return mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as error:
        raise FormatError(f"{path}: the file is empty.", hint="Was a download or a copy cut short?") from error
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror or error}.", hint="A weight file was expected."
        ) from error


def release_mapped_pages(mapped: mmap.mmap | None) -> None:
    """Drop the pages of a mapped file from this process's memory, where the system can."""
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def view(mapped: mmap.mmap, offset: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    """A read-only array over the mapped file, or a copy where the file did not align it (kernels need aligned data)."""
    count = int(np.prod(shape, dtype=np.int64))
    if count == 0:
        return np.empty(shape, dtype)
    array = np.frombuffer(mapped, dtype, count, offset).reshape(shape)
    return array if array.flags.aligned else array.copy()


def same_tensor(one: TensorMapping, name: str, other: TensorMapping, other_name: str) -> bool:
    """Is a tensor of `one` the same, bit for bit, as one of `other`?"""
    if one.shape(name) != other.shape(other_name):
        return False
    a, b = one[name], other[other_name]
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()
