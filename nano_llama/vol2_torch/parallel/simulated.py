"""Many ranks in one process: what a mesh of 64 does to a model, on a laptop, without a network.

    model = Llama.init(config)                                         # made once, it is every rank's
    with simulated_ranks(64) as ranks:
        mesh = make_mesh(ParallelConfig(dp=8, tp=8), torch.device("cpu"))
        parallel = parallelize(model, mesh)
        rows = ranks.rank_map(lambda rank: tokens[rank // 8 :][:1])    # a tensor that differs from rank to rank
        on_rank(parallel.parameters["model.norm.weight"], 63)          # what one of them holds

Each operation is done for every rank in turn, and a collective among what they hold; nothing is sent. So it shows
placements and proves sums, and says nothing about speed. Every rank runs the same program: pipelines, whose stages do
not, cannot be simulated. torch's LocalTensorMode is not yet a public part of it (torch 2.13).
Tests: tests/parallel/test_simulated.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist
from torch import Tensor
from torch.distributed._local_tensor import LocalTensor, LocalTensorMode

from nano_llama.core.errors import EnvironmentFault
from nano_llama.vol2_torch.parallel.gradients import local


@contextmanager
def simulated_ranks(count: int) -> Iterator[LocalTensorMode]:
    """Inside, torch.distributed has `count` ranks, all of them in this process."""
    from torch.testing._internal.distributed.fake_pg import FakeStore  # importing it adds the backend "fake"

    if dist.is_initialized():
        raise EnvironmentFault("This process already belongs to a process group.", hint="End the other one first.")
    dist.init_process_group("fake", rank=0, world_size=count, store=FakeStore())
    try:
        with LocalTensorMode(count) as ranks:
            yield ranks
    finally:
        dist.destroy_process_group()


def on_rank(tensor: Tensor, rank: int) -> Tensor:
    """What one of the ranks holds of a tensor."""
    here = local(tensor)
    return here._local_tensors[rank] if isinstance(here, LocalTensor) else here
