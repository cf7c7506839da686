"""A model and its adapter as one ordinary model: every adapted matrix is merged when it is read.

    with open_merged("org/name", "my-adapter") as weights:      # a TensorMapping: all that reads models takes it
        save_hf(folder, weights.config, weights)                # at most one tensor in memory
        roundings = read_back(folder, weights)                  # what was written is what was meant

The sum itself is core/lora.py's merged_weight; here it is rounded once, to the type that is wanted.
Tests: tests/formats/test_merged.py.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.lora import adapted_modules, merged_weight, module_tensors
from nano_llama.core.names import EMBED, LM_HEAD
from nano_llama.core.vision.config import VisionLanguageConfig
from nano_llama.core.vision.names import vision_shapes
from nano_llama.formats import open_model, open_text_model
from nano_llama.formats.dtypes import DTYPES, FLOATS, cast, float_name
from nano_llama.formats.gguf_quants import dequantize, quantize
from nano_llama.formats.mapping import QuantizedTensor, TensorMapping
from nano_llama.formats.peft import Adapter, read_adapter
from nano_llama.formats.vision_folder import open_vision_language


def open_merged(
    path: str | Path,
    adapter: str | Path,
    dtype: "str | np.typing.DTypeLike | None" = None,
    open_base: Callable[[str | Path], TensorMapping] = open_model,
) -> "MergedWeights":
    """The model at `path` with the adapter in the folder `adapter` merged into it.

    dtype: of the adapted matrices, "float32", np.float64 ...; None: as the base's, float32 where it is quantized.
    open_base: open_text_model where the LLaMA within a model that reads images will do.
    Raises what open_model and read_adapter raise, and FormatError where the adapter is of another model.
    """
    base = open_base(path)
    try:
        return MergedWeights(base, read_adapter(adapter, base.config), dtype)
    except BaseException:
        base.close()
        raise


class MergedWeights(TensorMapping):
    """`base` with an adapter in its matrices; tensors without one are the base's own, quantized blocks included.

    A tied model whose head is adapted gets a head of its own, as head and embedding now differ: `.config` says so.
    """

    def __init__(self, base: TensorMapping, adapter: Adapter, dtype: "str | np.typing.DTypeLike | None" = None):
        self.path, self.base, self.adapter = base.path, base, adapter
        self._wanted = None if dtype is None else float_name(dtype)
        self.adapted = [f"{module}.weight" for module in adapted_modules(adapter.lora, base.config)]
        splits_head = base.config.tie_word_embeddings and LM_HEAD in self.adapted
        self.known_config = base.config.replace(tie_word_embeddings=False) if splits_head else base.config
        self._names = [*base, LM_HEAD] if splits_head else list(base)
        if adapter.base_head is not None:
            adapter.check_base_head(self.base_tensor(LM_HEAD))

    def __getitem__(self, name: str) -> np.ndarray:
        return cast(name, self.exact(name), self.dtype_name(name)) if name in self.adapted else self.base[name]

    def exact(self, name: str) -> np.ndarray:
        """An adapted matrix before it is rounded: in float32, or wider where the base or the adapter is."""
        tensors = module_tensors(self.adapter.tensors, name.removesuffix(".weight"))
        return merged_weight(self.base_tensor(name), self.adapter.lora, *tensors)

    def base_tensor(self, name: str) -> np.ndarray:
        """The tensor without the adapter."""
        return self.base[self._in_base(name)]

    def _in_base(self, name: str) -> str:
        return EMBED if name == LM_HEAD and name not in self.base else name  # a tied head is the embedding

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.base.shape(self._in_base(name))

    def dtype_name(self, name: str) -> str:
        own = self.base.dtype_name(self._in_base(name))
        if name not in self.adapted:
            return own
        return self._wanted or (own if own in FLOATS else "F32")

    def nbytes(self, name: str) -> int:
        if name not in self.adapted:
            return self.base.nbytes(name)
        return math.prod(self.shape(name)) * DTYPES[self.dtype_name(name)].itemsize

    def raw(self, name: str) -> QuantizedTensor:
        return super().raw(name) if name in self.adapted else self.base.raw(name)

    def row_order(self, name: str) -> np.ndarray | None:
        return None if name in self.adapted else self.base.row_order(name)

    def release_pages(self) -> None:
        self.base.release_pages()

    def close(self) -> None:
        self.base.close()


@dataclass(frozen=True)
class Rounding:
    """How far an adapter moved the weights of a matrix, and how far rounding moved them after it: Euclidean norms."""

    name: str
    change: float
    error: float

    @property
    def relative(self) -> float:
        """1: rounding moved the weights as far as the adapter did, and little is left of what it learned."""
        return self.error / self.change if self.change else 0.0


def total_rounding(roundings: list[Rounding]) -> Rounding:
    """Of all matrices together."""
    return Rounding("", math.hypot(*(one.change for one in roundings)), math.hypot(*(one.error for one in roundings)))


def read_back_images(path: Path, config: VisionLanguageConfig, weights: TensorMapping) -> None:
    """The same for encoder and projector of a model that reads images; no adapter changes them."""
    with open_vision_language(path)[1] as written:
        for name in vision_shapes(config):
            _check_same(name, written, cast(name, weights[name], written.dtype_name(name)))


def _check_same(name: str, written: TensorMapping, expected: np.ndarray) -> None:
    if not np.array_equal(written[name], expected):
        raise EnvironmentFault(
            f"{name} was read back from {written.path} with other numbers than were written.",
            hint="Are disk and memory in order? Try it again, on another disk.",
        )


def read_back(path: Path, merged: MergedWeights) -> list[Rounding]:
    """Compare the model that was written at `path` with what was meant, number by number; -> its adapted matrices.

    Raises EnvironmentFault, naming the tensor, where a number differs.
    """
    roundings = []
    with open_text_model(path) as written:
        for name in merged:
            exact = merged.exact(name) if name in merged.adapted else merged[name]
            kind = written.dtype_name(name)
            if kind in DTYPES:
                expected = cast(name, exact, kind)
            elif kind == merged.dtype_name(name):  # blocks that were copied
                expected = exact
            else:
                expected = dequantize(kind, quantize(kind, exact))
            _check_same(name, written, expected)
            if name in merged.adapted:
                change, error = exact - merged.base_tensor(name), expected - exact
                roundings.append(Rounding(name, *(float(np.linalg.norm(moved)) for moved in (change, error))))
            for files in (written, merged):  # pages that were read may go: memory holds one tensor
                files.release_pages()
    return roundings
