"""A Hugging Face folder whose matrices are ggml's blocks: 4 or 8 bits per weight, in groups of 32 that share a scale.

    config.json          "quantization_config": {"quant_method": "nano-llama", "scheme": "int4",
                                                 "blocks": {"model.layers.0.mlp.up_proj.weight": "Q4_1", ...}}
    model.safetensors    a matrix that is named there as uint8 (rows, bytes of a row); all else as usual

It opens as any folder does, dequantized as it is read; Volume 3 takes the blocks as they are (`raw`).
Not here: the blocks themselves (gguf_quants.py), which matrix gets which (quantization_scheme.py).
Tests: tests/formats/test_quantized.py.
"""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import FormatError
from nano_llama.core.files import atomic_folder, write_json
from nano_llama.core.init import check_params
from nano_llama.formats.dtypes import DTYPES, cast
from nano_llama.formats.gguf_quants import dequantize, quantize, row_bytes
from nano_llama.formats.hf_config import QUANT_METHOD
from nano_llama.formats.kinds import WRITABLE_BLOCKS, Kind
from nano_llama.formats.mapping import QuantizedTensor, TensorMapping, as_mapping
from nano_llama.formats.safetensors import save_safetensors

QUANTIZATION = "quantization_config"


class QuantizedFolder(TensorMapping):
    """The tensors of `stored`, of which `blocks` lists those that are blocks, with their kind.

    Raises FormatError where a tensor cannot be of its kind.
    """

    def __init__(self, path: Path, stored: TensorMapping, blocks: Mapping[str, str]):
        self.path, self._stored, self._blocks = path, stored, dict(blocks)
        for name, kind in self._blocks.items():
            if kind not in WRITABLE_BLOCKS or name not in stored:
                raise FormatError(
                    f"{path}: {name!r:.80} is listed as {kind!r:.20}, but there is no such tensor or kind."
                )
            shape = stored.shape(name)
            if stored.dtype_name(name) != "U8" or len(shape) != 2 or shape[1] % Kind[kind].block_bytes:
                raise FormatError(
                    f"{path}: {name!r:.80} is stored as {stored.dtype_name(name)} {shape}, not as rows of {kind}.",
                    hint="Quantize the model again:  nano-llama quantize",
                )

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._blocks:
            return self._stored[name]
        return dequantize(self._blocks[name], self._stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        if name not in self._blocks:
            return self._stored.shape(name)
        rows, nbytes = self._stored.shape(name)
        kind = Kind[self._blocks[name]]
        return rows, nbytes // kind.block_bytes * kind.block_size

    def dtype_name(self, name: str) -> str:
        return self._blocks.get(name) or self._stored.dtype_name(name)

    def nbytes(self, name: str) -> int:
        return self._stored.nbytes(name)

    def raw(self, name: str) -> QuantizedTensor:
        if name in self._blocks:
            return QuantizedTensor(self._blocks[name], self.shape(name), self._stored[name])
        array = self._stored[name]
        blocks = np.ascontiguousarray(array).view(np.uint8).reshape(len(array), -1)
        return QuantizedTensor(self._stored.dtype_name(name), self._stored.shape(name), blocks)

    def release_pages(self) -> None:
        self._stored.release_pages()

    def close(self) -> None:
        self._stored.close()


def blocks_of(raw_config: Mapping[str, Any]) -> Mapping[str, str] | None:
    """The kinds that a config.json lists, or None where the folder is not quantized. Raises FormatError."""
    given = raw_config.get(QUANTIZATION)
    if given is None:
        return None
    blocks = given.get("blocks") if isinstance(given, Mapping) else None
    if not isinstance(blocks, Mapping) or not all(isinstance(kind, str) for kind in blocks.values()):
        raise FormatError(f"config.json: {QUANTIZATION} lists no blocks.", hint="Quantize the model again.")
    return blocks


class _AsBlocks(TensorMapping):
    """`source` with its matrices in the given kinds, each converted when it is read."""

    def __init__(self, source: TensorMapping, kinds: Mapping[str, str]):
        self.path, self._source, self._kinds = source.path, source, kinds

    def __getitem__(self, name: str) -> np.ndarray:
        kind = self._kinds.get(name)
        if kind is None:
            return self._source[name]
        if kind in DTYPES:
            return cast(name, self._source[name], kind)
        if kind == self._source.dtype_name(name):  # blocks of that kind already: taken as they are
            raw, order = self._source.raw(name), self._source.row_order(name)
            return raw.blocks if order is None else raw.blocks[order]
        return quantize(kind, self._source[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def shape(self, name: str) -> tuple[int, ...]:
        shape = self._source.shape(name)
        return (shape[0], row_bytes(self._kinds[name], shape[1])) if self._kinds.get(name) in WRITABLE_BLOCKS else shape

    def dtype_name(self, name: str) -> str:
        kind = self._kinds.get(name) or self._source.dtype_name(name)
        return "U8" if name in self._kinds and kind in WRITABLE_BLOCKS else kind


def quantized_nbytes(source: TensorMapping, kinds: Mapping[str, Kind]) -> int:
    """Bytes of the tensors that save_quantized would write, without their file's header."""
    return sum(
        round(math.prod(source.shape(name)) * Kind[kinds.get(name) or source.dtype_name(name)].bits_per_weight / 8)
        for name in source
    )


def save_quantized(
    folder: str | Path,
    config: LlamaConfig,
    weights: Mapping[str, np.ndarray],
    kinds: Mapping[str, str],
    tokenizer: Any = None,
    scheme: str = "",
) -> None:
    """Write the folder, with at most one tensor in memory.

    kinds: matrix -> "Q8_0", "Q4_0", "Q4_1", "F32", "F16" or "BF16"; all else keeps its dtype (blocks become F32).
    scheme: the text that chose them, for readers of the folder. tokenizer: a core.tokenizer.Tokenizer.
    The folder must not exist; a kill leaves nothing under its name. Raises UserError for a matrix whose rows are not
    whole blocks.
    """
    source = as_mapping(weights)
    check_params(config, source, source=str(source.path))
    write_quantized(folder, config.to_hf_dict(), source, kinds, tokenizer, scheme)


def write_quantized(
    folder: str | Path, content: Mapping[str, Any], source: TensorMapping, kinds: Mapping[str, str],
    tokenizer: Any = None, scheme: str = "", extra_files: Iterable[Path] = (),
) -> None:  # fmt: skip
    """save_quantized's files, for weights that were checked; content: what config.json is to say of the shape.
    extra_files: are copied beside them.
    """
    blocks = {name: kind for name, kind in kinds.items() if kind in WRITABLE_BLOCKS}
    own = {QUANTIZATION: {"quant_method": QUANT_METHOD, "scheme": scheme, "blocks": blocks}}
    with atomic_folder(folder) as temporary:
        write_json(temporary / "config.json", {**content, **own})
        save_safetensors(temporary / "model.safetensors", _AsBlocks(source, kinds))
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        for file in extra_files:
            shutil.copyfile(file, temporary / file.name)
