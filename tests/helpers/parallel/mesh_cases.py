"""Cases of tests/parallel/test_mesh.py."""

import pytest
import torch
import torch.distributed as dist

from nano_llama.core.errors import EnvironmentFault, UserError
from nano_llama.vol2_torch.parallel.config import AXES
from nano_llama.vol2_torch.parallel.mesh import BATCH_AXES, all_reduce, batch_rank, process_group, used_axes


def coordinates(here, mesh):
    mesh = here.mesh(mesh)
    return {axis: mesh[axis].get_local_rank() for axis in AXES}, batch_rank(mesh), used_axes(mesh)


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


def one_fails(here, failing):
    if here.rank == failing:
        raise ValueError(f"rank {failing} fails")
    dist.barrier()
