"""A model spread over a mesh, and what a training step needs to know of that: one place that composes the axes.

    parallel = parallelize(model, mesh)
    for batch in batches:                                    # those of the whole run; the same on every rank
        with parallel.accumulating(batch is batches[-1]):
            (parallel.loss_sum(*parallel.local_batch(batch)) / counted).backward()
    parallel.reduce_gradients()
    norm = parallel.global_norm()

Tests: tests/parallel/test_training.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.parallel import DistributedDataParallel

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import Batch
from nano_llama.vol2_torch.loss import HeadLoss, head_loss
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.ddp import LossSum, apply_ddp
from nano_llama.vol2_torch.parallel.fsdp import apply_fsdp, drop_gathered
from nano_llama.vol2_torch.parallel.gradients import finish_partial, global_norm, sum_gradients
from nano_llama.vol2_torch.parallel.mesh import BATCH_AXES, all_reduce, batch_rank, used_axes
from nano_llama.vol2_torch.parallel.tp import apply_tp
from nano_llama.vol2_torch.parallel.vocab_loss import VocabParallelLoss


def parallelize(model: Llama, mesh: DeviceMesh, *, sequence_parallel: bool = False) -> "Parallel":
    """Spread the model over the mesh, in place. Every rank comes with the same weights.

    sequence_parallel: of tp. The bytes are the same where a reduce-scatter costs half an all-reduce, as with NCCL;
    gloo's costs as much as the whole.
    """
    used = used_axes(mesh)
    if "tp" in used:
        apply_tp(model, mesh, sequence_parallel=sequence_parallel)
    loss: nn.Module = LossSum(model)
    left = {"dp"} & set(used)  # axes whose ranks hold copies, and whose gradients nothing below sums
    if "fsdp" in used:
        apply_fsdp(model, mesh)
        left.clear()
    elif used == ("dp",):
        loss = apply_ddp(loss, mesh)
        left.clear()
    return Parallel(model, mesh, loss, tuple(left))


class Parallel:
    """A model on a mesh. loss: a module that computes what `loss_sum` returns. left: the axes whose gradients are to be
    summed after the backward pass."""

    def __init__(self, model: Llama, mesh: DeviceMesh, loss: nn.Module, left: tuple[str, ...]):
        self.model, self.mesh, self.loss, self.left = model, mesh, loss, left
        self.parameters = list(model.named_params().values())
        self.head_loss: HeadLoss = VocabParallelLoss(mesh) if "tp" in used_axes(mesh) else head_loss

    def local_batch(self, batch: Batch) -> Batch:
        """The rows of a batch that this rank computes, as many as any other's: (B,T) -> (B/ranks,T), rounded up.

        Where the ranks do not divide B, the last ones get rows whose targets are all ignored.
        """
        rank, ranks = batch_rank(self.mesh)
        rows = -(-len(batch[0]) // ranks)
        index = np.arange(rank * rows, (rank + 1) * rows)
        tokens, targets, *documents = (part[np.minimum(index, len(part) - 1)] for part in batch)
        targets[index >= len(batch[0])] = IGNORE_INDEX
        return tokens, targets, *documents

    def loss_sum(
        self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None, *, z_loss: float = 0.0
    ) -> Tensor:
        """Nats summed over the counted targets of this rank's rows, differentiable.  (B/ranks,T) each -> ()"""
        return self.loss(tokens, targets, self.head_loss, z_loss, documents)

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        """Around a forward and backward pass. last: of a step; gradients that ranks hold whole are summed only then."""
        if isinstance(self.loss, DistributedDataParallel) and not last:
            with self.loss.no_sync():
                yield
        else:
            yield

    def reduce_gradients(self) -> None:
        """After the last backward pass: sum over the ranks what that pass has not."""
        finish_partial(self.parameters)
        sum_gradients(self.parameters, self.mesh, self.left)

    def global_norm(self) -> Tensor:
        """Of the whole gradient, (), the same on every rank."""
        return global_norm([p.grad for p in self.parameters if p.grad is not None], self.mesh)

    def total(self, loss: Tensor) -> Tensor:
        """A loss, or a count, summed over the ranks that share a batch: () -> ()"""
        return all_reduce(loss.detach().clone(), self.mesh, BATCH_AXES)

    @torch.no_grad()
    def eval_loss_sum(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """`loss_sum` over all ranks' rows, without a gradient."""
        loss = self.loss.module if isinstance(self.loss, DistributedDataParallel) else self.loss
        nats = self.total(loss(tokens, targets, self.head_loss, 0.0, None))
        drop_gathered(self.model)
        return nats
