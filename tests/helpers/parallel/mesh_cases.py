"""Cases of tests/parallel/test_mesh.py."""

import os
import signal
import time

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.vol2_torch.parallel.config import AXES, ParallelConfig
from nano_llama.vol2_torch.parallel.mesh import BATCH_AXES, all_reduce, batch_rank, process_group, used_axes


def coordinates(here, mesh):
    mesh = here.mesh(mesh)
    return {axis: mesh.get_local_rank(axis) for axis in AXES}, batch_rank(mesh), used_axes(mesh)


def sums(here, mesh):
    """rank + 1, summed over the ranks that share a batch."""
    return all_reduce(torch.tensor(here.rank + 1.0), here.mesh(mesh), BATCH_AXES).item()


def wrong_product(here):
    with pytest.raises(UserError) as refused:
        here.mesh("dp=3")
    return refused.value.message


def second_group(here, launch):
    with pytest.raises(EnvironmentFault, match="already belongs"), process_group(launch, torch.device("cpu")):
        pass
    return dist.get_world_size()


def groups(here, meshes):
    """Whether each axis of each mesh has the ranks that torch's own mesh gives it; and how many groups there are."""
    same = []
    for text in meshes:
        ours, config = here.mesh(text), ParallelConfig.parse(text)
        theirs = init_device_mesh("cpu", config.shape, mesh_dim_names=AXES)
        same.append(torch.equal(ours.mesh, theirs.mesh) and ours.get_coordinate() == theirs.get_coordinate())
        for axis in AXES:
            ranks = [dist.get_process_group_ranks(mesh.get_group(axis)) for mesh in (ours, theirs)]
            same.append(ranks[0] == ranks[1] and ours.size(AXES.index(axis)) == ours.get_group(axis).size())
    return all(same), len({id(here.mesh(text).get_group(axis)) for text in meshes for axis in AXES})


def one_dies(here, dying):
    if here.rank == dying:
        os.kill(os.getpid(), signal.SIGSEGV)
    dist.barrier()


def one_hangs(here, hanging):
    if here.rank == hanging:
        time.sleep(60)
    dist.barrier()


def one_fails(here, failing):
    if here.rank == failing:
        raise ValueError(f"rank {failing} fails")
    dist.barrier()
