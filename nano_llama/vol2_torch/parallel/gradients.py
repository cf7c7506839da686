"""Gradients over a mesh: their sum over ranks that hold copies, their global norm wherever the parts lie, clipping.

A gradient is a plain tensor, the same on every rank, or a DTensor, which says on which axes it is cut (Shard), copied
(Replicate), or still to be summed (Partial). Tests: tests/parallel/test_gradients.py.
"""

from collections.abc import Iterable, Iterator, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial

from nano_llama.vol2_torch.parallel.mesh import used_axes

BUCKET_BYTES = 25 * 2**20  # as many bytes of gradients travel together: a message has a price of its own


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor, without a copy."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def place_like_parameters(parameters: Iterable[nn.Parameter]) -> None:
    """Bring each gradient to where its parameter lies. One that is Partial is summed: of a parameter that is whole on
    every rank of an axis, whose ranks have each computed with a part of the positions or of the heads. Of one that is
    whole where the parameter is cut (an embedding's, over tp) each rank keeps its own part."""
    for parameter in parameters:
        gradient = parameter.grad
        if isinstance(gradient, DTensor):
            assert isinstance(parameter, DTensor), "a DTensor's gradient is one"
            if gradient.placements != parameter.placements:
                parameter.grad = gradient.redistribute(placements=parameter.placements)


def sum_gradients(parameters: Iterable[nn.Parameter], mesh: DeviceMesh, axes: Sequence[str]) -> None:
    """Sum what each rank holds over the ranks of these axes, bucket by bucket, in place."""
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    for axis in used_axes(mesh, tuple(axes)):
        for bucket in buckets(gradients):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            dist.all_reduce(flat, group=mesh.get_group(axis))
            parts = flat.split([gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one type, BUCKET_BYTES at a time."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        full = sum(held.nbytes for held in bucket) + gradient.nbytes > BUCKET_BYTES
        if bucket and (full or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def global_norm(gradients: Iterable[Tensor], mesh: DeviceMesh) -> Tensor:
    """The norm of all gradients as one vector, the same on every rank: () in float32, or wider.

    Squares are summed over the axes that cut a gradient, not over those that hold copies of it; then over the stages
    of a pipeline, which have different parameters. (A parameter that two stages share is to be given by one of them.)
    """
    cut: dict[tuple[str, ...], list[Tensor]] = {}  # axes that cut -> what this rank holds
    for gradient in gradients:
        cut.setdefault(cutting_axes(gradient), []).append(local(gradient))
    total = torch.zeros((), device=mesh.device_type)
    for axes, parts in sorted(cut.items()):  # in the same order on every rank
        norms = torch._foreach_norm(parts, dtype=torch.promote_types(parts[0].dtype, torch.float32))
        square = torch.stack(norms).square().sum()
        for axis in axes:
            dist.all_reduce(square, group=mesh.get_group(axis))
        total = total + square
    for axis in used_axes(mesh, ("pp",)):
        dist.all_reduce(total, group=mesh.get_group(axis))
    return total.sqrt()


def cutting_axes(tensor: Tensor) -> tuple[str, ...]:
    """The axes whose ranks hold different parts of a tensor."""
    if not isinstance(tensor, DTensor):
        return ()
    names = tensor.device_mesh.mesh_dim_names
    assert names is not None and not any(isinstance(where, Partial) for where in tensor.placements), "to be summed"
    return tuple(name for name, where in zip(names, tensor.placements, strict=True) if not where.is_replicate())


def clip(gradients: Iterable[Tensor], norm: Tensor, limit: float) -> None:
    """Scale all gradients so that their global norm is at most `limit`, in place."""
    scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch.nn.utils.clip_grad_norm_
    torch._foreach_mul_([local(gradient) for gradient in gradients], scale)
