"""Adapters for the CPU kernels: their matrices packed, in the order of rows of the base's matrices that they go beside.

Floats of 32 bits where all of the base is, else of 16 (bfloat16): every step reads them, as it reads the base.
Not here: the kernels (kernels/lora.py), what an adapter makes of a matrix (vol3_engine/adapters.py).
Tests: tests/vol3/cpu/test_adapters.py.
"""

from collections.abc import Sequence

import numpy as np

from nano_llama.core.names import DOWN_PROJ, GATE_PROJ, K_PROJ, O_PROJ, Q_PROJ, UP_PROJ, V_PROJ, layer_name
from nano_llama.formats.kinds import Kind
from nano_llama.formats.peft import Adapter
from nano_llama.vol3_engine.adapters import LowRankUpdate, low_rank_updates
from nano_llama.vol3_engine.cpu.aligned import aligned
from nano_llama.vol3_engine.cpu.kernels import pack
from nano_llama.vol3_engine.cpu.kernels.model import Adapters
from nano_llama.vol3_engine.cpu.plan import ModelPlan, PlannedMatrix

# A layer's matrices by what they read: the A's of each are stacked, in the order of kernels/model.py, QKV_A ... DOWN_A.
SAME_INPUT = ((Q_PROJ, K_PROJ, V_PROJ), (O_PROJ,), (GATE_PROJ, UP_PROJ), (DOWN_PROJ,))
HEAD = "lm_head"  # also of a tied model, whose embedding stays as it is

Updates = dict[str, LowRankUpdate]


def pack_adapters(adapters: Sequence[Adapter], plan: ModelPlan, data: np.ndarray) -> Adapters:
    """Numbered in their order. data: the base's packed matrices, whose rows DoRA measures."""
    packer = _Packer(Kind.F32 if all(matrix.kind == Kind.F32 for matrix in plan) else Kind.BF16)
    L = len(plan.layers)
    A, B = np.zeros((len(adapters), L + 1, 4, 5), np.int64), np.zeros((len(adapters), L + 1, 6, 8), np.int64)
    for number, adapter in enumerate(adapters):
        updates = low_rank_updates(adapter, lambda module: _unpacked(module, plan, data))
        for index, layer in enumerate(plan.layers):
            names = [[_module(layer_name(index, part)) for part in parts] for parts in SAME_INPUT]
            _pair_up(updates, *names[2])
            low = _pack_stacked(updates, names, packer, A[number, index])
            for row, matrix in zip(B[number, index], layer, strict=True):
                packer.add_B(updates, [_module(name) for name in matrix.names], matrix.order, low, row)
        low = _pack_stacked(updates, [[HEAD]], packer, A[number, L])
        packer.add_B(updates, [HEAD], plan.head.order, low, B[number, L, 0])
    return Adapters(*packer.arrays(), A, B)


def low_columns(adapters: Adapters) -> int:
    """Of the array that holds A x: the most rows that stacked A's have, in whole blocks."""
    return -(-int(adapters.A[..., 1].max(initial=0)) // pack.BLOCK_ROWS) * pack.BLOCK_ROWS


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _unpacked(module: str, plan: ModelPlan, data: np.ndarray) -> np.ndarray:
    """The base's matrix (out,in) float32, as the kernels multiply it."""
    matrices: list[PlannedMatrix] = [plan.head] if module == HEAD else [m for layer in plan.layers for m in layer]
    for matrix in matrices:
        modules = [HEAD] if module == HEAD else [_module(name) for name in matrix.names]
        if module in modules:
            own = matrix.order >= 0
            stacked = np.empty((own.sum(), matrix.columns), np.float32)
            stacked[matrix.order[own]] = pack.unpack(matrix.packed_in(data))[own]
            return np.split(stacked, len(modules))[modules.index(module)]
    raise AssertionError(f"{module} is a matrix of the model")


def _pair_up(updates: Updates, gate: str, up: str) -> None:
    """Blocks of gate and up alternate in one matrix: where only one is adapted, the other gets an update of zeros."""
    for name, other in ((gate, up), (up, gate)):
        if name not in updates and other in updates:
            A, B, rescaling = updates[other]
            updates[name] = LowRankUpdate(0 * A, 0 * B, np.ones_like(rescaling))


def _pack_stacked(
    updates: Updates, names: Sequence[Sequence[str]], packer: "_Packer", entries: np.ndarray
) -> dict[str, int]:
    """Pack the A's of each line of names -> where the columns of `low` begin that are each one's A x."""
    low = {}
    for row, modules in zip(entries, names, strict=False):
        stacked = [updates[name].A for name in modules if name in updates]
        if stacked:
            row[:] = packer.add_matrix(np.concatenate(stacked))
        start = 0
        for name in modules:
            if name in updates:
                low[name] = start
                start += len(updates[name].A)
    return low


class _Packer:
    """Collects packed matrices and rescalings, and says where each begins."""

    def __init__(self, kind: Kind):
        self.kind = kind
        self.matrices: list[np.ndarray] = []
        self.rescalings: list[np.ndarray] = []
        self.num_bytes = self.num_rescalings = 0

    def add_matrix(self, matrix: np.ndarray) -> tuple[int, int, int, int, int]:
        """-> its entry, as in kernels/model.py."""
        packed = pack.pack_floats(matrix, self.kind.number)
        start, self.num_bytes = self.num_bytes, self.num_bytes + packed.data.nbytes
        self.matrices.append(packed.data)
        return packed.kind, packed.rows, packed.columns, start, self.num_bytes

    def add_B(
        self, updates: Updates, modules: Sequence[str], order: np.ndarray, low: dict[str, int], entry: np.ndarray
    ) -> None:
        """The B's beside one packed matrix, whose rows are in this order; an entry of zeros where there is none."""
        if modules[0] not in updates:
            return
        stacked = [updates[name] for name in modules]
        own = order >= 0
        B = np.zeros((len(order), stacked[0].B.shape[1]), np.float32)
        B[own] = np.concatenate([update.B for update in stacked])[order[own]]
        rescaling = np.ones(-(-len(order) // pack.BLOCK_ROWS) * pack.BLOCK_ROWS, np.float32)
        rescaling[: len(order)][own] = np.concatenate([update.rescaling for update in stacked])[order[own]]
        entry[:] = (*self.add_matrix(B), low[modules[0]], low[modules[-1]] - low[modules[0]], self.num_rescalings)
        self.rescalings.append(rescaling)
        self.num_rescalings += len(rescaling)

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """All matrices and all rescalings, one after the other."""
        data, rescalings = aligned(self.num_bytes), aligned(self.num_rescalings, np.float32)
        if self.matrices:
            np.concatenate(self.matrices, out=data)
            np.concatenate(self.rescalings, out=rescalings)
        return data, rescalings
