"""Muon over many ranks: each matrix is orthogonalized once, by the rank that owns it.

Newton-Schulz needs a whole matrix, of which ranks hold parts (fsdp, tp) or copies (dp, cp). By turns the matrices are
given to the ranks. An all-to-all brings each owner the parts of its matrices, and another brings each rank its parts
of the results. So the ranks share the work, and where every rank would gather every matrix, with w ranks 1 - 1/w of
P numbers, it sends and receives 2/w of that. naive_muon.py does so. Momentum and weights stay where they are.
The update itself: optim/muon.py. Tests: tests/parallel/test_muon.py.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from nano_llama.vol2_torch.optim.muon import Muon
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.matrix_parts import Part, like, parts_of_all


class OwnerMuon(Muon):
    """group: all ranks that hold a part or a copy of these parameters; in a pipeline those of one stage."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, *, group: ProcessGroup, **options: Any):
        super().__init__(params, lr, **options)
        self.group = group
        matrices: list[Tensor] = [parameter for held in self.param_groups for parameter in held["params"]]
        self.parts = dict(zip(matrices, parts_of_all(matrices, group), strict=True))
        self.turn = 0  # whose is the next matrix
        self.orthogonalized_here = 0  # matrices, in all steps so far

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.turn = 0  # the same owners in every step
        super().step(closure)

    def _orthogonalized(self, parameters: list[nn.Parameter], ahead: Sequence[Tensor], iterations: int) -> list[Tensor]:
        rank, size = self.group.rank(), self.group.size()
        owners = [(self.turn + index) % size for index in range(len(parameters))]
        self.turn += len(parameters)
        owned = [index for index, owner in enumerate(owners) if owner == rank]
        parts = [self.parts[parameter] for parameter in parameters]

        # to each owner what it needs from here, from each rank what it has of what is owned here
        leaving: list[list[Tensor]] = [[] for _ in range(size)]
        for matrix, held, owner in zip(ahead, parts, owners, strict=True):
            if rank in senders(held, owner):
                leaving[owner].append(local(matrix))
        arriving = [
            [(index, parts[index][sender]) for index in owned if sender in senders(parts[index], rank)]
            for sender in range(size)
        ]
        wholes = {index: local(ahead[index]).new_empty(parameters[index].shape) for index in owned}
        received = self.exchange(leaving, [[part for _, part in expected] for expected in arriving])
        for expected, tensors in zip(arriving, received, strict=True):
            for (index, part), tensor in zip(expected, tensors, strict=True):
                part.of(wholes[index]).copy_(tensor)

        steps = {}
        if owned:
            made = super()._orthogonalized([parameters[i] for i in owned], list(wholes.values()), iterations)
            steps = dict(zip(owned, made, strict=True))
            self.orthogonalized_here += len(owned)

        # back: to each rank its part of what is owned here
        leaving = [[parts[index][to].of(steps[index]) for index in owned] for to in range(size)]
        by_owner = [[index for index, owner in enumerate(owners) if owner == sender] for sender in range(size)]
        received = self.exchange(leaving, [[parts[index][rank] for index in indices] for indices in by_owner])
        here = {
            index: tensor
            for indices, tensors in zip(by_owner, received, strict=True)
            for index, tensor in zip(indices, tensors, strict=True)
        }
        return [like(here[index], matrix) for index, matrix in enumerate(ahead)]

    def exchange(self, leaving: list[list[Tensor]], arriving: list[list[Part]]) -> list[list[Tensor]]:
        """One all-to-all: the tensors leaving[i] go to rank i -> what came from each rank, shaped as its parts."""
        flat = [tensor.flatten() for tensors in leaving for tensor in tensors]
        weight = self.param_groups[0]["params"][0]
        sent = torch.cat(flat) if flat else local(weight).new_empty(0)
        out_sizes = [sum(tensor.numel() for tensor in tensors) for tensors in leaving]
        in_sizes = [sum(part.numel for part in parts) for parts in arriving]
        received = sent.new_empty(sum(in_sizes))
        dist.all_to_all_single(received, sent, in_sizes, out_sizes, group=self.group)
        return [
            [tensor.view(part.shape) for tensor, part in zip(x.split([p.numel for p in parts]), parts, strict=True)]
            for x, parts in zip(received.split(in_sizes), arriving, strict=True)
        ]


def senders(held: list[Part], owner: int) -> set[int]:
    """Of the ranks that hold parts or copies of a matrix, those that send theirs to its owner: each part once, and
    what the owner has itself comes from nobody else."""
    first = {part: rank for rank, part in reversed(list(enumerate(held)))}
    first[held[owner]] = owner
    return set(first.values())
