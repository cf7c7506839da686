"""How a model's matrices are packed: which tensors, in which order of rows, in which kind of numbers.

Not here: packing them (weights.py). Tests: tests/vol3/cpu/test_runner.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import (
    DOWN_PROJ,
    EMBED,
    GATE_PROJ,
    K_PROJ,
    LM_HEAD,
    O_PROJ,
    Q_PROJ,
    UP_PROJ,
    V_PROJ,
    layer_name,
)
from nano_llama.formats.dtypes import float_name
from nano_llama.formats.kinds import FLOATS, Kind
from nano_llama.formats.mapping import TensorMapping
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.kinds import KERNEL_KINDS
from nano_llama.vol3_engine.cpu.kernels.kv_cache import padded
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

    def packed_in(self, data: np.ndarray) -> pack.Matrix:
        return pack.Matrix(self.kind.number, len(self.order), self.columns, data[self.start : self.start + self.nbytes])

    @property
    def entry(self) -> tuple[int, int, int, int, int]:
        return self.kind.number, len(self.order), self.columns, self.start, self.start + self.nbytes


@dataclass
class ModelPlan:
    """All of them, in the order in which they lie in memory."""

    embedding: PlannedMatrix
    head: PlannedMatrix  # the embedding where they are tied
    layers: list[list[PlannedMatrix]]  # each layer's, in the order of kernels/model.py

    def __iter__(self):
        yield self.embedding
        if self.head is not self.embedding:
            yield self.head
        for layer in self.layers:
            yield from layer


def plan_model(config: LlamaConfig, weights: TensorMapping, dtype: str, kinds: Mapping[str, Kind]) -> ModelPlan:
    """kinds: what a quantization scheme says of each matrix; without it, the dtype says the kind."""
    kind_of = partial(_kind_of, weights, dtype, kinds)
    rows = np.arange(config.vocab_size)
    embedding = _plan(weights, kind_of, (EMBED,), rows)
    head = embedding if config.tie_word_embeddings else _plan(weights, kind_of, (LM_HEAD,), rows)
    layers = [_layer_plan(config, weights, kind_of, index) for index in range(config.num_hidden_layers)]
    plan = ModelPlan(embedding, head, layers)
    size = 0
    for matrix in plan:
        matrix.start, size = size, size + matrix.nbytes
    return plan


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
