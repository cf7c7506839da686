"""From processes to a mesh: ranks that find each other, then lie in a grid with an axis for each kind of parallelism.

    with process_group(launch, device) as description:      # launch: core/env.py, what torchrun said
        mesh = make_mesh(ParallelConfig(fsdp=2, tp=2), device)
        mesh.get_local_rank("tp"), axis_size(mesh, "tp"), mesh.get_group("tp")

All five axes are always there, those that are not used with size 1. Rank 5 of dp=2,fsdp=2,tp=2 has the coordinates
1, 0, 1: the last axis counts fastest. Tests: tests/parallel/test_mesh.py.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.core.env import Launch
from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.vol2_torch.parallel.config import AXES, ParallelConfig
from nano_llama.vol2_torch.parallel.network import describe

BATCH_AXES = ("dp", "fsdp")  # whose ranks share the rows of a batch
TIMEOUT = 600.0  # seconds that a rank waits for the others in one operation

Groups = dict[tuple[int, ...], ProcessGroup]  # by their ranks


def backend_for(device: torch.device) -> str:
    """torch.distributed's name of what carries the data: gloo between CPUs, nccl between GPUs, and gloo beside it."""
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"Several processes cannot train on {device.type!r}.", hint="Choose --device cpu or cuda.")
    return "gloo" if device.type == "cpu" else "cpu:gloo,cuda:nccl"


UNREACHED = (dist.DistError, ValueError, RuntimeError)


def shared_store(launch: Launch, timeout: float = TIMEOUT) -> dist.Store:
    """Where ranks find each other, as torchrun's variables name it: a store that the first of them serves, or torchrun.

    Raises EnvironmentFault where it is not reached.
    """
    try:
        found = dist.rendezvous("env://", launch.rank, launch.world_size, timeout=timedelta(seconds=timeout))
        return next(iter(found))[0]
    except UNREACHED as error:
        raise _did_not_find(launch, error) from error


@contextmanager
def process_group(
    launch: Launch, device: torch.device, *, timeout: float = TIMEOUT, store: dist.Store | None = None
) -> Iterator[str]:
    """Join the other processes until the block ends -> one line for the user: backend, address, interface.

    store: where ranks find each other (default: `shared_store`). Raises EnvironmentFault where they do not.
    """
    if dist.is_initialized():
        raise EnvironmentFault("This process already belongs to a process group.", hint="End the other one first.")
    backend = backend_for(device)
    store = store or shared_store(launch, timeout)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        dist.init_process_group(
            backend, rank=launch.rank, world_size=launch.world_size, timeout=timedelta(seconds=timeout), store=store
        )  # fmt: skip
    except UNREACHED as error:
        raise _did_not_find(launch, error) from error
    try:
        name = "gloo" if device.type == "cpu" else "nccl"
        yield f"rank {launch.rank} of {launch.world_size} on {device}: {name}, {describe(name)}"
    finally:
        if dist.is_initialized():  # heartbeat.py lets go of it sooner where a rank has failed
            dist.destroy_process_group()


def _did_not_find(launch: Launch, error: Exception) -> EnvironmentFault:
    reason = str(error).strip().splitlines()[0][:200]
    return EnvironmentFault(
        f"Rank {launch.rank} of {launch.world_size} did not find the others at {launch.address}: {reason}",
        hint=f"Can this machine reach that address? It uses {describe('gloo')}.",
    )


def device_of_rank(device: torch.device, launch: Launch) -> torch.device:
    """The device of this rank: on a machine with GPUs each process has its own."""
    if device.type != "cuda":
        return device
    present = torch.cuda.device_count()
    if launch.local_world_size > present:
        raise UserError(
            f"{launch.local_world_size} processes were started on a machine with {present} GPUs.",
            hint=f"torchrun --nproc-per-node {present}",
        )
    return torch.device("cuda", launch.local_rank)


def make_mesh(
    config: ParallelConfig, device: torch.device, groups: Groups | None = None, *, timeout: float = TIMEOUT
) -> DeviceMesh:
    """The grid of all ranks, with the axes of AXES. Raises UserError unless the product is the number of ranks.

    Axes of the same ranks share a process group, above all those of one rank: every group of gloo's keeps a thread that
    wakes a hundred times a second. groups: those that other meshes of this process have made, to be shared as well.
    """
    world_size = dist.get_world_size()
    config.check_world_size(world_size)
    made: Groups = {} if groups is None else groups
    grid, own = np.arange(world_size).reshape(config.shape), []
    for axis, size in enumerate(config.shape):
        for ranks in map(tuple, np.moveaxis(grid, axis, -1).reshape(-1, size).tolist()):
            if ranks not in made:  # all ranks make all groups, in the same order
                made[ranks] = _group(ranks, timeout)
            if dist.get_rank() in ranks:
                own.append(made[ranks])
    return DeviceMesh.from_group(own, device.type, mesh=grid, mesh_dim_names=AXES)


def axis_size(mesh: DeviceMesh, axis: str) -> int:
    """How many ranks an axis has. (mesh[axis].size() makes another mesh first, each time.)"""
    assert mesh.mesh_dim_names is not None
    return mesh.size(mesh.mesh_dim_names.index(axis))


def used_axes(mesh: DeviceMesh, axes: tuple[str, ...] = AXES) -> tuple[str, ...]:
    """Those of `axes` that have more than one rank."""
    return tuple(axis for axis in axes if axis_size(mesh, axis) > 1)


def batch_rank(mesh: DeviceMesh) -> tuple[int, int]:
    """(rank, ranks) among those that share the rows of a batch."""
    rank, ranks = 0, 1
    for axis in BATCH_AXES:
        size = axis_size(mesh, axis)
        rank, ranks = rank * size + mesh.get_local_rank(axis), ranks * size
    return rank, ranks


def stage_group(mesh: DeviceMesh, timeout: float = TIMEOUT) -> ProcessGroup:
    """All ranks that have the same layers: they differ in every axis but pp, which is the first."""
    axes = used_axes(mesh, AXES[1:])
    if len(axes) < 2:  # they are those of that axis, or this rank alone, which has a group
        return mesh.get_group(axes[0] if axes else AXES[-1])
    groups = {tuple(ranks): _group(ranks, timeout) for ranks in mesh.mesh.flatten(1).tolist()}
    return next(group for ranks, group in groups.items() if dist.get_rank() in ranks)


def _group(ranks: Sequence[int], timeout: float) -> ProcessGroup:
    """Of all ranks the one that there is; else a new one, for which torch would take half an hour, not the world's
    time-out.
    """
    world = dist.group.WORLD
    assert world is not None, "the processes have joined"
    return world if len(ranks) == world.size() else dist.new_group(ranks, timeout=timedelta(seconds=timeout))


def all_reduce(tensor: torch.Tensor, mesh: DeviceMesh, axes: tuple[str, ...]) -> torch.Tensor:
    """Sum a plain tensor over the ranks of these axes, in place -> the same tensor."""
    for axis in used_axes(mesh, axes):
        dist.all_reduce(tensor, group=mesh.get_group(axis))
    return tensor
