"""Tensors of a model on a mesh as wholes, for samples and files; and an exchange of weights that all axes survive.

Tests: tests/parallel/test_weights.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from nano_llama.vol2_torch.parallel.gradients import local


@torch.no_grad()
def whole_tensors(tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> Iterator[tuple[str, Tensor]]:
    """(name, all of it), of tensors of the whole model, one after another, on every rank.

    tensors: what this rank has, whole, cut, or in a pipeline its stage's alone: parameters, their averages, or what an
    optimizer keeps of them. One that several stages have comes once. A rank that does not want a tensor lets it go
    before it takes the next: no rank then holds more than one at a time. All ranks must take all of them, since each
    has a part in every one.
    """
    pp = mesh["pp"]
    stages: list[Any] = [{name: (tensor.shape, tensor.dtype, tensor.device.type) for name, tensor in tensors.items()}]
    if pp.size() > 1:
        stages *= pp.size()
        dist.all_gather_object(stages, stages[0], group=pp.get_group())
    first: dict[str, int] = {}  # name -> the first stage that has it, which sends it
    for stage, held in enumerate(stages):
        first |= {name: stage for name in held if name not in first}
    for name, owner in first.items():
        if pp.get_local_rank() == owner:
            tensor = tensors[name].detach()
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        else:
            shape, dtype, device = stages[owner][name]
            whole = torch.empty(shape, dtype=dtype, device=device)
        if pp.size() > 1:
            dist.broadcast(whole := whole.contiguous(), group=pp.get_group(), group_src=owner)
        yield name, whole


@torch.no_grad()
def exchange(parameters: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> None:
    """Let parameters and others change their contents, name by name and in place; once more undoes it, bit for bit.

    Setting `parameter.data`, as one process may, changes nothing here: fully_shard and DTensors go on computing with
    the memory that they know.
    """
    for name, parameter in parameters.items():
        mine, other = local(parameter), local(others[name])
        kept = mine.clone()
        mine.copy_(other)
        other.copy_(kept)
