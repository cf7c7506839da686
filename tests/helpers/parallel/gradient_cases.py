"""Cases of tests/parallel/test_gradients.py."""

import pytest
import torch
from torch import nn
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from nano_llama.vol2_torch.parallel import gradients

PLACEMENTS = {
    "cut": ((5, 3), [Shard(0), Replicate()]),  # unevenly
    "cut twice": ((8, 6), [Shard(0), Shard(1)]),
    "cut by columns": ((3, 7), [Replicate(), Shard(1)]),
    "copied": ((4,), [Replicate(), Replicate()]),
    "empty on some ranks": ((1, 2), [Shard(0), Shard(0)]),
}


def parameter(values: torch.Tensor, gradient: torch.Tensor) -> nn.Parameter:
    made = nn.Parameter(values)
    made.grad = gradient
    return made


def norms(here, mesh):
    """(ours, torch's of the whole tensors): of all placements together, and of each alone."""
    mesh = here.mesh(mesh)
    whole = {name: torch.randn(shape) for name, (shape, _) in PLACEMENTS.items()}  # the same on every rank
    spread = {
        name: distribute_tensor(whole[name], mesh["fsdp", "tp"], where) for name, (_, where) in PLACEMENTS.items()
    }
    whole["plain"] = spread["plain"] = torch.randn(6)
    found = {name: (gradients.global_norm([spread[name]], mesh), whole[name].norm()) for name in whole}
    found["all"] = gradients.global_norm(spread.values(), mesh), torch.cat([t.flatten() for t in whole.values()]).norm()
    gradients.clip(spread.values(), found["all"][0], 0.5)
    found["clipped"] = gradients.global_norm(spread.values(), mesh), torch.tensor(0.5)
    return {name: (ours.item(), theirs.item()) for name, (ours, theirs) in found.items()}


def norm_of_stages(here, mesh):
    return gradients.global_norm([torch.tensor([3.0 + here.rank, 0.0])], here.mesh(mesh)).item()


def sums(here, mesh, bucket_bytes):
    """The gradients after sum_gradients over dp; before, they are `rank + 1` times 1, 2, 3."""
    mesh = here.mesh(mesh)
    values = [torch.full(shape, (here.rank + 1.0) * (i + 1)) for i, shape in enumerate([(2, 3), (4,), (1, 1)])]
    own = [parameter(torch.zeros_like(value), value) for value in values]
    own[1] = parameter(torch.zeros(4).double(), values[1].double())
    own.append(nn.Parameter(torch.zeros(2)))  # without a gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "BUCKET_BYTES", bucket_bytes)
        gradients.sum_gradients(own, mesh, ("dp", "tp"))
    return [
        p.grad if p.grad is None else (tuple(p.grad.shape), str(p.grad.dtype), p.grad.unique().tolist()) for p in own
    ]


def partial(here, mesh):
    mesh = here.mesh(mesh)["tp"]
    copied = DTensor.from_local(torch.zeros(3), mesh, [Replicate()])
    held = torch.full((3,), here.rank + 1.0)
    own = parameter(copied, DTensor.from_local(held, mesh, [Partial()]))
    gradients.place_like_parameters([own])
    return own.grad.placements == (Replicate(),), own.grad.to_local().tolist()
