"""A model's weights for the CPU kernels: read tensor by tensor and packed into one array, after which the file is free.

    dtype        a file's Q4_0, Q4_1, Q8_0    its other blocks    BF16      F16      F32
    "auto"       the same blocks              Q8_0                BF16      F16      F32
    "float32"    F32                          F32                 F32       F32      F32      (and bfloat16, float16)

Or a quantization scheme (formats/quantization_scheme.py) says the kind of each matrix. Quantized weights are multiplied
with activations of 8 bits, floats with floats; prefill rows, where there is AMX, in bfloat16 (kernels/linear.py).
Tests: tests/vol3/cpu/test_runner.py.
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
from nano_llama.formats.dtypes import float_name
from nano_llama.formats.gguf_quants import quantize
from nano_llama.formats.kinds import FLOATS, Kind
from nano_llama.formats.mapping import TensorMapping
from nano_llama.formats.quantization_scheme import Scheme
from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.kinds import KERNEL_KINDS, UNIT
from nano_llama.vol3_engine.cpu.kernels.kv_cache import padded
from nano_llama.vol3_engine.cpu.kernels.linear import form_read
from nano_llama.vol3_engine.cpu.kernels.model import Model
from nano_llama.vol3_engine.cpu.kernels.repack import repack, whole_blocks
from nano_llama.vol3_engine.cpu.kernels.swiglu import interleaved_rows

KindOf = Callable[[str], Kind]


@dataclass
class PlannedMatrix:
    """A matrix to be packed: rows of one or two tensors, reordered."""

    names: tuple[str, ...]  # stacked vertically
    order: np.ndarray  # (rows,): which stacked row each row is; -1: zeros
    columns: int
    kind: Kind
    start: int = 0  # byte in Model.data

    @property
    def nbytes(self) -> int:
        return pack.packed_bytes(self.kind.number, len(self.order), self.columns)

    @property
    def entry(self) -> tuple[int, int, int, int, int]:
        return self.kind.number, len(self.order), self.columns, self.start, self.start + self.nbytes


def load_model(config: LlamaConfig, weights: TensorMapping, dtype: str, scheme: str | None = None) -> Model:
    """Pack all weights; the file's pages are released after every matrix. scheme: formats/quantization_scheme.py."""
    kinds = Scheme.parse(scheme).kinds(config) if scheme else {}
    kind_of = partial(_kind_of, weights, dtype, kinds)
    layers = [_layer_plan(config, weights, kind_of, index) for index in range(config.num_hidden_layers)]
    embedding = _plan(weights, kind_of, (EMBED,), np.arange(config.vocab_size))
    tied = config.tie_word_embeddings
    head = embedding if tied else _plan(weights, kind_of, (LM_HEAD,), np.arange(config.vocab_size))
    plans = [embedding, *([] if tied else [head]), *(plan for layer in layers for plan in layer)]
    if not kinds:
        _warn_of_repacking(weights, plans)
    size = 0
    for plan in plans:
        plan.start, size = size, size + plan.nbytes
    data = aligned(size + 4096)  # prefetches may look beyond the end
    for plan in plans:
        _pack(plan, weights, data[plan.start : plan.start + plan.nbytes])
        weights.release_pages()
    used = {plan.kind.number for plan in plans}
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
        decode_form=_forms(used, prefill=False),
        prefill_form=_forms(used, prefill=True),
    )


def _forms(kinds: set[int], prefill: bool) -> int:
    return reduce(or_, (form_read(kind, prefill) for kind in kinds))


def _layer_plan(config: LlamaConfig, weights: TensorMapping, kind_of: KindOf, index: int) -> list[PlannedMatrix]:
    """The six matrices of kernels/model.py. Heads are padded to whole blocks; rows of gate and up alternate by 16."""
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
    if len(kinds) > 1:  # gate and up become one matrix, of a kind exact enough for both
        kinds = {Kind.F32 if kinds & set(FLOATS) else Kind.Q8_0}
    return PlannedMatrix(names, order, weights.shape(names[0])[1], kinds.pop())


def _kind_of(weights: TensorMapping, dtype: str, kinds: Mapping[str, Kind], name: str) -> Kind:
    """The kind in which a matrix is packed: as the scheme says, or the dtype, or as it is stored."""
    if not kinds and dtype != "auto":
        return Kind[float_name(dtype)]
    stored = kinds.get(name) or weights.dtype_name(name)
    kind = Kind[stored] if stored in KERNEL_KINDS else Kind.Q8_0
    whole_groups = weights.shape(name)[1] % kind.block_size == 0
    return kind if whole_groups else Kind.F32


def _warn_of_repacking(weights: TensorMapping, plans: list[PlannedMatrix]) -> None:
    kinds = {weights.dtype_name(name) for plan in plans if plan.kind == Kind.Q8_0 for name in plan.names} - {Kind.Q8_0}
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
        out[:] = pack.pack_floats(chosen, plan.kind.number).data
        return
    order, start = plan.order, 0
    for name in plan.names:
        own = (order >= start) & (order < start + weights.shape(name)[0])
        blocks, stored_order = _blocks(weights, name, plan.kind)
        rows = np.where(own, stored_order[np.where(own, order - start, 0)], -1)
        repack(plan.kind.number, blocks, whole_blocks(rows), 0, len(order), out)
        start += len(stored_order)


def _blocks(weights: TensorMapping, name: str, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """A tensor's blocks of that kind (rows, bytes) and the order of its rows in them."""
    rows = weights.shape(name)[0]
    if weights.dtype_name(name) == kind:
        order = weights.row_order(name)
        blocks = weights.raw(name).blocks
    else:
        order = None
        blocks = quantize(kind, np.asarray(weights[name], np.float32))
    if blocks.flags.writeable:  # as a mapped file's are not, so that the kernel is compiled once
        blocks.flags.writeable = False
    return blocks, np.arange(rows) if order is None else order


def _norms(config: LlamaConfig, weights: TensorMapping) -> np.ndarray:
    L, D = config.num_hidden_layers, config.hidden_size
    names = [layer_name(index, part) for index in range(L) for part in (INPUT_NORM, POST_NORM)] + [NORM]
    norms = aligned((2 * L + 1) * (-(-D // UNIT) * UNIT), np.float32).reshape(2 * L + 1, -1)
    for row, name in zip(norms, names, strict=True):
        row[:D] = weights[name]
    return norms
