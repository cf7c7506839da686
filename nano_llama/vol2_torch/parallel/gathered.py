"""What a run on a mesh saves, read by the first rank tensor by tensor: none is gathered before it is asked for.

A checkpoint so needs no rank that holds the model: beside its own part a rank has the one tensor that is being written.
Tests: tests/parallel/test_gathered.py.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.formats.dtypes import DTYPES, dtype_name
from nano_llama.training.ranks import GatheredTensors
from nano_llama.vol2_torch.parallel.weights import described, whole_tensor
from nano_llama.vol2_torch.training_state import to_array

CLOSED = -1  # in place of the number of a tensor


class MeshTensors(GatheredTensors):
    """tensors: what this rank has of them (weights.py). beside: arrays that each rank has whole."""

    def __init__(self, tensors: Mapping[str, Tensor], mesh: DeviceMesh, beside: Mapping[str, np.ndarray]):
        self.path = Path("(gathered from all processes)")
        self.tensors, self.mesh, self.beside = tensors, mesh, beside
        self.described = described(tensors, mesh)
        self.names = list(self.described)
        self.is_open = True

    # -- on the first rank ----------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> np.ndarray:
        if name in self.beside:
            return self.beside[name]
        return to_array(self._gather(self._told(self.names.index(name))))

    def close(self) -> None:
        """Let the other ranks go on. Nothing can be read any more."""
        if self.is_open and dist.get_rank() == 0:
            self._told(CLOSED)
        self.is_open = False

    # -- on the others --------------------------------------------------------------------------------------------

    def serve(self) -> None:
        while (number := self._told()) != CLOSED:
            self._gather(number)

    # -- on all ---------------------------------------------------------------------------------------------------

    def _told(self, number: int = 0) -> int:
        """The first rank's number."""
        told = torch.tensor(number)
        dist.broadcast(told, 0)
        return int(told)

    def _gather(self, number: int) -> Tensor:
        name = self.names[number]
        return whole_tensor(name, self.described[name], self.tensors, self.mesh)

    def __iter__(self) -> Iterator[str]:
        yield from self.names
        yield from self.beside

    def __len__(self) -> int:
        return len(self.names) + len(self.beside)

    def shape(self, name: str) -> tuple[int, ...]:
        return self.beside[name].shape if name in self.beside else self.described[name].shape

    def dtype_name(self, name: str) -> str:
        if name in self.beside:
            return dtype_name(self.beside[name].dtype)
        return dtype_name(to_array(torch.empty(0, dtype=self.described[name].dtype)).dtype)

    def nbytes(self, name: str) -> int:
        return int(np.prod(self.shape(name))) * DTYPES[self.dtype_name(name)].itemsize
