"""Muon over many ranks in the plainest form: everyone gets every part of a matrix, and orthogonalizes all of it.

As many broadcasts as ranks for each matrix, and the same products on every rank: owner_muon.py sends less, and shares
the work. Tests: tests/parallel/test_muon.py compares the two.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from nano_llama.vol2_torch.optim.muon import Muon
from nano_llama.vol2_torch.parallel.gradients import local
from nano_llama.vol2_torch.parallel.matrix_parts import Part, like, parts_of_all


class NaiveMuon(Muon):
    """group: all ranks that hold a part or a copy of these parameters."""

    def __init__(self, params: Iterable[nn.Parameter], lr: float = 1e-3, *, group: ProcessGroup, **options: Any):
        super().__init__(params, lr, **options)
        self.group = group
        matrices: list[Tensor] = [parameter for held in self.param_groups for parameter in held["params"]]
        self.parts = dict(zip(matrices, parts_of_all(matrices, group), strict=True))

    def _orthogonalized(self, parameters: list[nn.Parameter], ahead: Sequence[Tensor], iterations: int) -> list[Tensor]:
        rank = self.group.rank()
        parts = [self.parts[parameter] for parameter in parameters]
        wholes = [self.gathered(matrix, held) for matrix, held in zip(ahead, parts, strict=True)]
        steps = super()._orthogonalized(parameters, wholes, iterations)
        return [like(held[rank].of(step), m) for step, held, m in zip(steps, parts, ahead, strict=True)]

    def gathered(self, matrix: Tensor, held: list[Part]) -> Tensor:
        """All of a matrix, (rows, columns), from what each rank holds of it."""
        whole = local(matrix).new_empty(matrix.shape)
        for sender, part in enumerate(held):
            here = self.group.rank() == sender
            sent = local(matrix).contiguous() if here else whole.new_empty(part.shape)
            dist.broadcast(sent, dist.get_global_rank(self.group, sender), group=self.group)
            part.of(whole).copy_(sent)
        return whole
