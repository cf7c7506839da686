"""Which rows and columns of a matrix each rank holds, whatever axes cut it: what optimizers of whole matrices need.

Tests: tests/parallel/test_muon.py.
"""

from typing import NamedTuple

import torch.distributed as dist
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset  # torch's checkpoints need it too


class Part(NamedTuple):
    """Consecutive rows and columns of a matrix."""

    rows: tuple[int, int]
    columns: tuple[int, int]

    def of(self, matrix: Tensor) -> Tensor:
        return matrix[slice(*self.rows), slice(*self.columns)]

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    @property
    def numel(self) -> int:
        return self.shape[0] * self.shape[1]


def slices_here(tensor: Tensor) -> tuple[slice, ...]:
    """Where this rank's part lies in the whole of a tensor: of a plain tensor everything is here."""
    if not isinstance(tensor, DTensor):
        return tuple(slice(0, size) for size in tensor.shape)
    shape, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    return tuple(slice(start, start + size) for start, size in zip(offset, shape, strict=True))


def part_here(matrix: Tensor) -> Part:
    """What this rank holds of a matrix."""
    rows, columns = slices_here(matrix)
    return Part((rows.start, rows.stop), (columns.start, columns.stop))


def parts_of_all(matrices: list[Tensor], group: ProcessGroup) -> list[list[Part]]:
    """For each matrix what each rank of the group holds."""
    here = [part_here(matrix) for matrix in matrices]
    everywhere: list[list[Part]] = [[] for _ in range(group.size())]
    dist.all_gather_object(everywhere, here, group=group)
    return [[held[index] for held in everywhere] for index in range(len(matrices))]


def like(part: Tensor, tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, as `tensor` is: a DTensor with its placements, or plain."""
    if not isinstance(tensor, DTensor):
        return part
    return DTensor.from_local(
        part, tensor.device_mesh, tensor.placements, run_check=False, shape=tensor.shape, stride=tensor.stride()
    )
