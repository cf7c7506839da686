"""Tensors of a model on a mesh as wholes, for samples and files; parts of them from files; and an exchange of weights
that all axes survive.

Tests: tests/parallel/test_weights.py.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from nano_llama.formats.mapping import TensorMapping
from nano_llama.vol2_torch.model import to_tensor
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.matrix_parts import slices_here
from nano_llama.vol2_torch.parallel.mesh import axis_size


class Described(NamedTuple):
    """What is known of a tensor where it is not held. stage: of the pipeline, the first that has it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device: str  # its type
    stage: int


def described(tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> dict[str, Described]:
    """Of the whole model, the same on every rank: name -> how that tensor is as a whole.

    tensors: what this rank has of them, whole, cut, or in a pipeline its stage's alone: parameters, their averages, or
    what an optimizer keeps of them. One that several stages have comes once.
    """
    stage, count = mesh.get_local_rank("pp"), axis_size(mesh, "pp")
    here = {
        name: Described(tuple(tensor.shape), tensor.dtype, tensor.device.type, stage)
        for name, tensor in tensors.items()
    }
    stages: list[Any] = [here]
    if count > 1:
        stages *= count
        dist.all_gather_object(stages, here, group=mesh.get_group("pp"))
    found: dict[str, Described] = {}
    for held in stages:
        found |= {name: tensor for name, tensor in held.items() if name not in found}
    return found


@torch.no_grad()
def whole_tensor(name: str, found: Described, tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> Tensor:
    """All of one tensor, on every rank: each has a part in it, so all must ask for the same one. found: `described`."""
    if mesh.get_local_rank("pp") == found.stage:
        tensor = tensors[name].detach()
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    else:
        whole = torch.empty(found.shape, dtype=found.dtype, device=found.device)
    if axis_size(mesh, "pp") > 1:
        dist.broadcast(whole := whole.contiguous(), group=mesh.get_group("pp"), group_src=found.stage)
    return whole


def whole_tensors(tensors: Mapping[str, Tensor], mesh: DeviceMesh) -> Iterator[tuple[str, Tensor]]:
    """(name, all of it), one after another, on every rank. All must take all of them.

    A rank that does not want a tensor lets it go before it takes the next: it then holds no more than one at a time.
    """
    for name, found in described(tensors, mesh).items():
        yield name, whole_tensor(name, found, tensors, mesh)


def part_of(whole: np.ndarray, parameter: Tensor) -> np.ndarray:
    """Of a whole tensor what this rank holds of the parameter it belongs to; of a mapped file nothing else is read."""
    return whole[slices_here(parameter)]


@torch.no_grad()
def fill(module: nn.Module, weights: Mapping[str, np.ndarray], device: str) -> None:
    """Give a part of a model that is on the meta device memory, and this rank's part of the weights, tensor by tensor.

    weights: of the whole model. device: its type; of several GPUs the process has chosen one.
    """
    module.to_empty(device=device)
    for name, parameter in module.named_parameters():
        local(parameter).copy_(to_tensor(part_of(weights[name], parameter)))
        if isinstance(weights, TensorMapping):
            weights.release_pages()


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
