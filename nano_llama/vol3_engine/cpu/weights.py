"""A model's weights for the CPU kernels: read tensor by tensor and packed into one array, after which the file is free.

    dtype        a file's Q4_0, Q4_1, Q8_0    its other blocks    BF16      F16      F32
    "auto"       the same blocks              Q8_0                BF16      F16      F32
    "float32"    F32                          F32                 F32       F32      F32      (and bfloat16, float16)

Or a quantization scheme (formats/quantization_scheme.py) says the kind of each matrix. Quantized weights are multiplied
with activations of 8 bits, floats with floats; prefill rows, where there is AMX, in bfloat16 (kernels/linear.py).
Tests: tests/vol3/cpu/test_runner.py.
"""

import warnings
from collections.abc import Sequence
from functools import reduce
from operator import or_

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.names import INPUT_NORM, NORM, POST_NORM, layer_name
from nano_llama.formats.gguf_quants import quantize
from nano_llama.formats.kinds import FLOATS, Kind
from nano_llama.formats.mapping import TensorMapping
from nano_llama.formats.peft import Adapter
from nano_llama.formats.quantization_scheme import Scheme
from nano_llama.vol3_engine.cpu import adapters
from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.kernels import activations, pack
from nano_llama.vol3_engine.cpu.kernels.kinds import UNIT
from nano_llama.vol3_engine.cpu.kernels.linear import form_read
from nano_llama.vol3_engine.cpu.kernels.model import Model
from nano_llama.vol3_engine.cpu.kernels.repack import repack, whole_blocks
from nano_llama.vol3_engine.cpu.plan import ModelPlan, PlannedMatrix, plan_model


def load_model(
    config: LlamaConfig,
    weights: TensorMapping,
    dtype: str,
    scheme: str | None = None,
    loaded: Sequence[Adapter] = (),
) -> Model:
    """Pack all weights; the file's pages are released after every matrix.

    scheme: formats/quantization_scheme.py. loaded: adapters, numbered in this order.
    """
    kinds = Scheme.parse(scheme).kinds(config) if scheme else {}
    plan = plan_model(config, weights, dtype, kinds)
    if not kinds:
        _warn_of_repacking(weights, plan)
    data = aligned(sum(matrix.nbytes for matrix in plan) + 4096)  # prefetches may look beyond the end
    for matrix in plan:
        _pack(matrix, weights, data[matrix.start : matrix.start + matrix.nbytes])
        weights.release_pages()
    used = {matrix.kind.number for matrix in plan}
    floats = activations.FLOATS if loaded else 0  # what A is multiplied with
    return Model(
        data=data,
        layers=np.array([[matrix.entry for matrix in layer] for layer in plan.layers], np.int64),
        ends=np.array([plan.embedding.entry, plan.head.entry], np.int64),
        norms=_norms(config, weights),
        hidden_size=config.hidden_size,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        eps=np.float32(config.rms_norm_eps),
        decode_form=_forms(used, prefill=False) | floats,
        prefill_form=_forms(used, prefill=True) | floats,
        adapters=adapters.pack_adapters(loaded, plan, data),
    )


def _forms(kinds: set[int], prefill: bool) -> int:
    return reduce(or_, (form_read(kind, prefill) for kind in kinds))


def _warn_of_repacking(weights: TensorMapping, plan: ModelPlan) -> None:
    names = [name for matrix in plan if matrix.kind == Kind.Q8_0 for name in matrix.names]
    kinds = {weights.dtype_name(name) for name in names} - {Kind.Q8_0}
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
