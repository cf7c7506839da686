"""How many bytes a rank sends, counted axis by axis while a step runs.

    with CommBytes(mesh) as sent:
        ...                          # forward, backward, reduce_gradients
    sent.by_axis                     # {"fsdp": 12345678, "tp": ...}

It sees every collective operation on its way to the library, those of DistributedDataParallel's reducer, fully_shard's
hooks and DTensors included, and counts what the best algorithm sends: of n bytes over w ranks

    all-reduce 2 (w-1)/w n · all-gather, reduce-scatter, all-to-all, broadcast (w-1)/w n · send n

gloo has no reduce-scatter of its own: it makes one of an all-reduce, and so it is counted between CPUs. Each operation
of the step passes through Python meanwhile: count a step or two, not a run. What to expect: comm_formulas.py.
Tests: tests/parallel/test_wire.py.
"""

from collections import Counter
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nano_llama.vol2_torch.parallel.mesh import used_axes

OTHER = "other"  # ranks that are not those of one of the mesh's axes
NAMESPACES = ("c10d", "_c10d_functional")  # calls of torch.distributed; of DTensors and compiled code
# An operation's name contains -> how it is counted. In order: "allreduce_coalesced_" is an all-reduce.
KINDS = {
    "allreduce": "all-reduce", "all_reduce": "all-reduce",
    "allgather": "all-gather", "all_gather": "all-gather",
    "reduce_scatter": "reduce-scatter",
    "alltoall": "all-to-all", "all_to_all": "all-to-all",
    "broadcast": "broadcast", "send": "send",
}  # fmt: skip


class CommBytes(TorchDispatchMode):
    """by_axis: bytes that this rank sent. calls: {(axis, kind): how often}."""

    def __init__(self, mesh: DeviceMesh):
        super().__init__()
        self.axis_of = {ranks_of(mesh.get_group(axis)): axis for axis in used_axes(mesh)}
        self.by_axis: Counter[str] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace in NAMESPACES:
            self._count(func, args, kwargs or {})
        return func(*args, **(kwargs or {}))

    def _count(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        name = func.name().split("::")[1]
        kind = next((kind for part, kind in KINDS.items() if part in name), None)
        if kind is None:
            return  # waiting, barriers, receiving
        given = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
        group = group_of(given)
        # Where an operation of torch.distributed has outputs, they come first, and what is sent is its second argument.
        apart = func.namespace == "c10d" and kind in ("all-gather", "reduce-scatter", "all-to-all")
        tensors = [leaf for leaf in tree_leaves(args[1 if apart else 0]) if isinstance(leaf, Tensor)]
        axis = self.axis_of.get(ranks_of(group), OTHER)
        self.calls[axis, kind] += 1
        self.by_axis[axis] += round(sum(sent_bytes(kind, t.nbytes, group.size(), t.device.type) for t in tensors))


def sent_bytes(kind: str, n: float, ranks: int, device: str) -> float:
    """What a rank sends, of a tensor of n bytes that it brings to an operation."""
    share = (ranks - 1) / ranks
    if kind == "all-reduce" or (kind == "reduce-scatter" and device == "cpu"):
        return 2 * share * n
    if kind == "all-gather":
        return share * ranks * n  # of the result, which is w times as large
    return n if kind == "send" else share * n


def ranks_of(group: dist.ProcessGroup) -> tuple[int, ...]:
    """Meshes of the same ranks may share groups, or have their own: what tells an axis is its ranks, not a name."""
    return tuple(dist.get_process_group_ranks(group))


def group_of(arguments: dict[str, Any]) -> dist.ProcessGroup:
    if "group_name" in arguments:
        return dist.distributed_c10d._resolve_process_group(arguments["group_name"])
    return dist.ProcessGroup.unbox(arguments["process_group"])
