"""A model's weights for the CPU kernels: read tensor by tensor, packed into one piece of memory, and the file let go.

    dtype        a GGUF's Q4_0, Q4_1, Q8_0    its other types     BF16      F16      F32
    "auto"       the file's own blocks        groups of 8 bits    BF16      F16      F32
    "float32"    F32                          F32                 F32       F32      F32      (and bfloat16, float16)

A quantization scheme (quantization.py) names each matrix's kind instead. With quantized weights products are of bytes
(activations in groups of 8 bits too), otherwise of floats; for prompts, where there is AMX, of bfloat16.
Not here: layouts (kernels/pack.py), the file formats (formats/). Tests: tests/vol3/cpu/test_runner.py.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial, reduce
from operator import or_

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import (
    DOWN_PROJ,
    EMBED,
    GATE_PROJ,
    INPUT_NORM,
    K_PROJ,
    LM_HEAD,
    NORM,
    O_PROJ,
    POST_NORM,
    Q_PROJ,
    UP_PROJ,
    V_PROJ,
    layer_name,
)
from nano_llama.formats.gguf_quants import quantize as to_gguf_blocks
from nano_llama.formats.mapping import TensorMapping
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.kv_cache import padded
from nano_llama.vol3_engine.cpu.kernels.linear import form_read
from nano_llama.vol3_engine.cpu.kernels.model import Model
from nano_llama.vol3_engine.cpu.kernels.repack import KIND_OF, repack, whole_blocks
from nano_llama.vol3_engine.cpu.kernels.swiglu import interleaved_rows
from nano_llama.vol3_engine.quantization import Scheme

KIND_OF_DTYPE = {"float32": pack.F32, "bfloat16": pack.BF16, "float16": pack.F16}
KIND_OF_FLOATS = {"F32": pack.F32, "BF16": pack.BF16, "F16": pack.F16}
FLOATS = set(KIND_OF_FLOATS.values())
KindOf = Callable[[str], int]


@dataclass
class PlannedMatrix:
    """A matrix to be packed: rows of tensors in an order of their own."""

    names: tuple[str, ...]  # stacked one below the other
    order: np.ndarray  # (rows,): the stacked row that each row is; -1: a row of zeros
    columns: int
    kind: int
    start: int = 0  # first byte in the whole

    @property
    def nbytes(self) -> int:
        return pack.packed_bytes(self.kind, len(self.order), self.columns)

    @property
    def entry(self) -> tuple[int, int, int, int, int]:
        return self.kind, len(self.order), self.columns, self.start, self.start + self.nbytes


def load_model(config: LlamaConfig, weights: TensorMapping, dtype: str, scheme: str | None = None) -> Model:
    """Pack all weights; the file's pages are given back after every matrix. scheme: as in quantization.py."""
    kinds = Scheme.parse(scheme).kinds(config) if scheme else {}
    kind_of = partial(_kind_of, weights, dtype, kinds)
    layers = [_layer_plan(config, weights, kind_of, index) for index in range(config.num_hidden_layers)]
    embedding = _plan(weights, kind_of, (EMBED,), np.arange(config.vocab_size))
    tied = config.tie_word_embeddings
    head = embedding if tied else _plan(weights, kind_of, (LM_HEAD,), np.arange(config.vocab_size))
    plans = [embedding, *([] if tied else [head]), *(plan for layer in layers for plan in layer)]
    if not kinds:
        _say_what_is_repacked(weights, plans)
    size = 0
    for plan in plans:
        plan.start, size = size, size + plan.nbytes
    data = pack.aligned(size + 4096)  # prefetches may look beyond the end
    for plan in plans:
        _pack(plan, weights, data[plan.start : plan.start + plan.nbytes])
        weights.release_pages()
    used = {plan.kind for plan in plans}
    return Model(
        data=data,
        layers=np.array([[plan.entry for plan in layer] for layer in layers], np.int64),
        ends=np.array([embedding.entry, head.entry], np.int64),
        norms=_norms(config, weights),
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        eps=np.float32(config.rms_norm_eps),
        decode_form=_forms(used, False),
        prefill_form=_forms(used, True),
    )


def _forms(kinds: set[int], prefill: bool) -> int:
    return reduce(or_, (form_read(kind, prefill) for kind in kinds))


def _layer_plan(config: LlamaConfig, weights: TensorMapping, kind_of: KindOf, index: int) -> list[PlannedMatrix]:
    """The six matrices, in the step's order. Heads are padded to whole blocks; gate and up come in turns of 16."""
    H, G, F = config.num_attention_heads, config.num_key_value_heads, config.intermediate_size
    plan, name = partial(_plan, weights, kind_of), partial(layer_name, index)
    return [
        plan((name(Q_PROJ),), _padded_heads(H, config.head_dim)),
        plan((name(K_PROJ),), _padded_heads(G, config.head_dim)),
        plan((name(V_PROJ),), _padded_heads(G, config.head_dim)),
        plan((name(O_PROJ),), np.arange(config.hidden_size)),
        plan((name(GATE_PROJ), name(UP_PROJ)), interleaved_rows(F)),
        plan((name(DOWN_PROJ),), np.arange(config.hidden_size)),
    ]


def _padded_heads(heads: int, head_dim: int) -> np.ndarray:
    order = np.full((heads, padded(head_dim)), -1)
    order[:, :head_dim] = np.arange(heads * head_dim).reshape(heads, head_dim)
    return order.reshape(-1)


def _plan(weights: TensorMapping, kind_of: KindOf, names: tuple[str, ...], order: np.ndarray) -> PlannedMatrix:
    kinds = {kind_of(name) for name in names}
    if len(kinds) > 1:  # gate and up are one matrix here, so the more exact kind that holds both
        kinds = {pack.F32 if kinds & FLOATS else pack.Q8}
    return PlannedMatrix(names, order, weights.shape(names[0])[1], kinds.pop())


def _kind_of(weights: TensorMapping, dtype: str, kinds: Mapping[str, str], name: str) -> int:
    """How a matrix is to be packed: as the scheme says, or the dtype, or as it is stored."""
    if not kinds and dtype != "auto":
        return KIND_OF_DTYPE[dtype]
    stored = kinds.get(name) or weights.dtype_name(name)
    kind = {**KIND_OF, **KIND_OF_FLOATS}.get(stored, pack.Q8)
    return pack.F32 if kind not in FLOATS and weights.shape(name)[1] % pack.GROUP else kind  # floats fit any width


def _say_what_is_repacked(weights: TensorMapping, plans: list[PlannedMatrix]) -> None:
    kinds = {weights.dtype_name(name) for plan in plans if plan.kind == pack.Q8 for name in plan.names} - {"Q8_0"}
    if kinds:
        warnings.warn(
            f"{weights.path}: {', '.join(sorted(kinds))} has no kernel of its own; these matrices are repacked to "
            "8 bits in groups of 32, which takes more memory than the file.",
            stacklevel=4,
        )


def _pack(plan: PlannedMatrix, weights: TensorMapping, out: np.ndarray) -> None:
    if plan.kind in FLOATS:
        stacked = np.concatenate([np.asarray(weights[name]) for name in plan.names])
        chosen = stacked[plan.order]
        chosen[plan.order < 0] = 0
        out[:] = pack.pack_floats(chosen, plan.kind).data
        return
    order, start = plan.order, 0
    for name in plan.names:
        own = (order >= start) & (order < start + weights.shape(name)[0])
        blocks, stored_order = _blocks(weights, name, plan.kind)
        rows = np.where(own, stored_order[np.where(own, order - start, 0)], -1)
        repack(plan.kind, blocks, whole_blocks(rows), 0, len(order), out)
        start += len(stored_order)


def _blocks(weights: TensorMapping, name: str, kind: int) -> tuple[np.ndarray, np.ndarray]:
    """A tensor's blocks of that kind (rows, bytes) and the order of its rows in them."""
    rows = weights.shape(name)[0]
    if KIND_OF.get(weights.dtype_name(name)) == kind:
        order = weights.row_order(name)
        blocks = weights.raw(name).blocks
    else:
        order = None
        (stored,) = (stored for stored, own in KIND_OF.items() if own == kind)
        blocks = to_gguf_blocks(stored, np.asarray(weights[name], np.float32))
    if blocks.flags.writeable:  # as a mapped file's are not, so that the kernel is compiled once
        blocks.flags.writeable = False
    return blocks, np.arange(rows) if order is None else order


def _norms(config: LlamaConfig, weights: TensorMapping) -> np.ndarray:
    L, D = config.num_hidden_layers, config.hidden_size
    names = [layer_name(index, part) for index in range(L) for part in (INPUT_NORM, POST_NORM)] + [NORM]
    norms = pack.aligned((2 * L + 1) * (-(-D // pack.UNIT) * pack.UNIT), np.float32).reshape(2 * L + 1, -1)
    for row, name in zip(norms, names, strict=True):
        row[:D] = weights[name]
    return norms
