"""A GGUF file as a model: its tensors under our names and in our row order, and a model written as such a file.

Not here: the bytes (gguf_reader.py, gguf_writer.py), the blocks (gguf_quants.py), the names (gguf_names.py), the
config (gguf_config.py), and the tokenizer's keys (tokenizer/gguf.py). Tests: tests/formats/test_gguf.py.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError, UserError
from nano_llama.core.init import check_params
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.formats.dtypes import DTYPES, cast
from nano_llama.formats.gguf_config import check_written, config_from_gguf, config_to_gguf, keep_end_ids
from nano_llama.formats.gguf_names import ROPE_FREQS, from_gguf, is_rotated, rows_from_gguf, rows_to_gguf, to_gguf
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.gguf_reader import GGUFFile
from nano_llama.formats.gguf_writer import PlannedTensor, write_gguf
from nano_llama.formats.kinds import Kind
from nano_llama.formats.mapping import QuantizedTensor, TensorMapping, as_mapping

WRITTEN = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1")
KEEP = "keep"
# `general.file_type`, by the kind of most matrices (llama.cpp's LLAMA_FTYPE numbers).
_FILE_TYPE = {
    "F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "Q5_0": 8, "Q5_1": 9,
    "Q4_K": 15, "Q5_K": 17, "Q6_K": 18,
}  # fmt: skip


class GGUFWeights(TensorMapping):
    """A LLaMA's tensors in a GGUF: quantized ones come back as float32, q and k with transformers' row order.

    `file` has the metadata. Raises FormatError or ConfigError where the file is not a whole LLaMA.
    """

    def __init__(self, file: GGUFFile):
        self.path = file.path
        self.file = file
        self.known_config = config_from_gguf(file)
        self._theirs: dict[str, str] = {}  # our name -> the file's
        for theirs in file.tensors:
            ours = from_gguf(theirs)
            if ours is not None:
                self._theirs[ours] = theirs
            elif theirs != ROPE_FREQS:
                raise FormatError(
                    f"{file.path}: the tensor {theirs!r:.80} does not belong to a LLaMA.", hint=_why_extra(theirs)
                )
        if len(self._theirs) < self.config.num_hidden_layers:
            raise FormatError(
                f"{file.path} holds {len(self._theirs)} tensors, too few for {self.config.num_hidden_layers} layers."
            )
        check_params(self.config, self, source=str(file.path))

    def __getitem__(self, name: str) -> np.ndarray:
        raw = self.raw(name)
        order = self.row_order(name)
        dtype = DTYPES.get(raw.kind)
        array = dequantize(raw.kind, raw.blocks) if dtype is None else raw.blocks.view(dtype)
        return (array if order is None else array[order]).reshape(raw.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._theirs)

    def __len__(self) -> int:
        return len(self._theirs)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.file.tensors[self._theirs[name]].shape

    def dtype_name(self, name: str) -> str:
        return self.file.tensors[self._theirs[name]].kind

    def nbytes(self, name: str) -> int:
        return self.file.tensors[self._theirs[name]].nbytes

    def raw(self, name: str) -> QuantizedTensor:
        info = self.file.tensors[self._theirs[name]]
        return QuantizedTensor(info.kind, info.shape, self.file.blocks(info.name))

    def row_order(self, name: str) -> np.ndarray | None:
        return rows_from_gguf(self.shape(name)[0], self.config.head_dim) if is_rotated(name) else None

    def release_pages(self) -> None:
        self.file.release_pages()

    def close(self) -> None:
        self.file.close()


def written_type(dtype: str) -> str:
    """One of WRITTEN, in capitals, or "keep". Raises UserError for what is none of them."""
    wanted = dtype if dtype == KEEP else dtype.upper()
    if wanted not in (*WRITTEN, KEEP):
        raise UserError(f"GGUF tensors cannot be written as {dtype!r}.", hint=f"Choose {', '.join(WRITTEN)} or {KEEP}.")
    return wanted


def save_gguf(
    path: str | Path,
    config: LlamaConfig,
    weights: Mapping[str, np.ndarray],
    tokenizer: Any = None,
    dtype: str = "F16",
    name: str = "",
    check: Callable[[Path], None] = lambda written: None,
) -> None:
    """Write a model that llama.cpp loads, with at most one tensor in memory.

    dtype: one of WRITTEN for the matrices (norms are always F32; for Q4_0 and Q4_1 the embedding and the head, which
    lose most, become Q8_0), or "keep": every tensor as it is stored, quantized blocks untouched.
    tokenizer: what has `to_gguf(vocab_size)`, as the Tokenizer of nano_llama.tokenizer does, or a mapping of
    `tokenizer.*` metadata to copy, or None (llama.cpp then takes ids only). What was written is read back and compared
    before the file takes its name; check is then handed it too. Raises UserError for what GGUF cannot hold.
    """
    wanted = written_type(dtype)
    source = as_mapping(weights)
    check_params(config, source, source=str(source.path))
    general = _general_metadata(source)
    metadata, extra = config_to_gguf(config, name or general.get("general.name", Path(path).stem))
    metadata = general | metadata
    plan = [PlannedTensor(key, "F32", array.shape, partial(np.asarray, array)) for key, array in extra.items()]
    plan += [_planned(ours, source, config, wanted) for ours in source]
    bytes_of = dict.fromkeys((tensor.kind for tensor in plan), 0)
    for tensor in plan:
        bytes_of[tensor.kind] += tensor.nbytes
    metadata["general.file_type"] = _FILE_TYPE[max(bytes_of, key=lambda kind: bytes_of[kind])]
    if not bytes_of.keys() <= DTYPES.keys():
        metadata["general.quantization_version"] = 2
    metadata |= _tokenizer_metadata(tokenizer, config)
    keep_end_ids(metadata, config)

    def check_all(written: Path) -> None:
        check_written(written, config)
        check(written)

    write_gguf(path, metadata, plan, check_all)


def _general_metadata(source: TensorMapping) -> dict[str, Any]:
    """The metadata that a copy keeps of a GGUF: its name, authors, licence ..."""
    if not isinstance(source, GGUFWeights):
        return {}
    technical = {"general.alignment", "general.file_type", "general.quantization_version"}
    general = {key: value for key, value in source.file.metadata.items() if key.startswith("general.")}
    plain = (str, int, float, np.ndarray)  # or lists of strings; lists of lists are not written
    general = {
        key: value for key, value in general.items() if isinstance(value, plain) or all(type(v) is str for v in value)
    }
    return {key: value for key, value in general.items() if key not in technical}


def _planned(ours: str, source: TensorMapping, config: LlamaConfig, wanted: str) -> PlannedTensor:
    theirs = to_gguf(ours)
    assert theirs is not None, f"check_params has let {ours} pass"
    shape, own = source.shape(ours), source.dtype_name(ours)
    if len(shape) == 1:
        kind = "F32"
    elif wanted == KEEP:
        kind = own if own in Kind.__members__ else "F32"
    else:
        kind = "Q8_0" if wanted in ("Q4_0", "Q4_1") and ours in (EMBED, LM_HEAD) else wanted
    planned = PlannedTensor(theirs, kind, shape, _maker(ours, source, config, kind))
    try:
        _ = planned.nbytes
    except UserError as error:
        raise UserError(f"{ours}: {error.message}", hint="Choose F16, BF16 or F32, which hold any width.") from None
    return planned


def _maker(ours: str, source: TensorMapping, config: LlamaConfig, kind: str) -> Callable[[], np.ndarray]:
    if kind not in DTYPES and source.dtype_name(ours) == kind:
        return partial(_own_blocks, ours, source, config)

    def make() -> np.ndarray:
        array = source[ours]
        if is_rotated(ours):
            array = array[rows_to_gguf(len(array), config.head_dim)]
        return cast(ours, array, kind) if kind in DTYPES else quantize(kind, array)

    return make


def _own_blocks(ours: str, source: TensorMapping, config: LlamaConfig) -> np.ndarray:
    """A quantized tensor as it is stored, its rows in GGUF's order: in a GGUF they are in it already."""
    blocks, order = source.raw(ours).blocks, source.row_order(ours)
    if not is_rotated(ours):
        return blocks if order is None else blocks[order]
    rows = rows_to_gguf(len(blocks), config.head_dim)
    rows = rows if order is None else order[rows]
    return blocks if np.array_equal(rows, np.arange(len(rows))) else blocks[rows]


def _tokenizer_metadata(tokenizer: Any, config: LlamaConfig) -> dict[str, Any]:
    if tokenizer is None:
        return {"tokenizer.ggml.model": "none"}
    if isinstance(tokenizer, Mapping):
        return {key: value for key, value in tokenizer.items() if key.startswith("tokenizer.")}
    return tokenizer.to_gguf(config.vocab_size)


def _why_extra(name: str) -> str:
    if name.endswith(".bias"):
        return "Biases are not computed here."
    if "_exps" in name or "gate_inp" in name:
        return "Mixtures of experts are not computed here."
    return "Was it converted from another architecture?"
