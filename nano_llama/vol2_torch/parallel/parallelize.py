"""A model spread over a mesh, and what a training step needs to know of that: one place that composes the axes.

    parallel = parallelize(model, mesh)
    for batch in batches:                                    # those of the whole run; the same on every rank
        loss += parallel.backward(*parallel.local_batch(batch), weight=1 / counted, last=batch is batches[-1])
    parallel.reduce_gradients()
    norm = parallel.global_norm()
    loss = parallel.total(loss)

Tests: tests/parallel/test_training.py.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.core.errors import UserError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import Batch
from nano_llama.vol2_torch.loss import HeadLoss, head_loss
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.cp import context_parallel, packed_over_cp
from nano_llama.vol2_torch.parallel.fsdp import apply_fsdp, drop_gathered
from nano_llama.vol2_torch.parallel.gradients import global_norm, place_like_parameters, sum_gradients
from nano_llama.vol2_torch.parallel.mesh import BATCH_AXES, all_reduce, axis_size, batch_rank, used_axes
from nano_llama.vol2_torch.parallel.pp import Pipeline
from nano_llama.vol2_torch.parallel.refusals import check_variant
from nano_llama.vol2_torch.parallel.sequence_split import split_batch
from nano_llama.vol2_torch.parallel.stage import Stage
from nano_llama.vol2_torch.parallel.tp import apply_tp
from nano_llama.vol2_torch.parallel.vocab_loss import VocabParallelLoss
from nano_llama.vol2_torch.parallel.weights import fill
from nano_llama.vol2_torch.parallel.whole_model import WholeModel

LOSS_AXES = (*BATCH_AXES, "cp", "pp")  # over whose ranks a loss is a sum


def parallelize(
    model: Llama, mesh: DeviceMesh, *, head_loss: HeadLoss = head_loss, z_loss: float = 0.0,
    autocast: Callable[[], AbstractContextManager] = nullcontext, sequence_parallel: bool = False,
    context: str = "ring", schedule: str = "1f1b", weights: Mapping[str, np.ndarray] | None = None,
    products: torch.dtype | None = None,
) -> "Parallel":  # fmt: skip
    """Spread the model over the mesh, in place. Every rank comes with the same weights, or on the meta device.

    weights: of the whole model where it is on the meta device; each rank takes its own part of them, so that none ever
    holds the model. products: of fsdp (fsdp.py).
    head_loss, z_loss: as in `loss_sum`; over tp the loss is VocabParallelLoss. autocast: the context of a forward pass.
    sequence_parallel: of tp. The bytes are the same where a reduce-scatter costs half an all-reduce, as with NCCL;
    gloo's costs as much as the whole. context: how cp attends (cp.py). schedule: of pp (pp.py).
    """
    used = used_axes(mesh)
    check_variant(model.config, used)
    if "tp" in used:
        head_loss = VocabParallelLoss(mesh)
    pipeline = None
    if "pp" in used:
        if sequence_parallel:
            raise UserError("sequence_parallel over pp: a stage passes on whole rows.", hint="Leave one of them out.")
        pipeline = Pipeline(
            model, mesh.get_group("pp"), schedule=schedule, head_loss=head_loss, z_loss=z_loss, autocast=autocast
        )
    parts: list[Llama | Stage] = [model] if pipeline is None else list(pipeline.stages.values())
    for part in parts:
        if "cp" in used:
            context_parallel(part, mesh.get_group("cp"), context, tp=axis_size(mesh, "tp"))
        if "tp" in used:
            apply_tp(part, mesh, sequence_parallel=sequence_parallel)
        if "fsdp" in used:
            apply_fsdp(part, mesh, keep_gathered=pipeline is not None, products=products)
        if weights is not None:
            fill(part, weights, mesh.device_type)
    ddp = used == ("dp",)
    left = {"dp", "cp"} & set(used)  # axes whose ranks hold copies, and whose gradients nothing else sums
    if ddp or "fsdp" in used:
        left.discard("dp")
    steps = pipeline or WholeModel(model, mesh if ddp else None, head_loss, z_loss, autocast)
    return Parallel(parts, mesh, steps, tuple(left))


class Parallel:
    """A model on a mesh.

    parts: what this rank has of it: the stages of a pipeline, or all. steps: what computes with them. left: the axes
    whose gradients are to be summed after the backward passes.
    """

    def __init__(
        self, parts: list[Llama | Stage], mesh: DeviceMesh, steps: Pipeline | WholeModel, left: tuple[str, ...]
    ):
        self.parts, self.mesh, self.steps, self.left = parts, mesh, steps, left
        self.parameters: dict[str, nn.Parameter] = {
            name: parameter for part in parts for name, parameter in part.named_parameters()
        }

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

    def backward(
        self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None, *, weight: float, last: bool = True
    ) -> Tensor:
        """Add to the gradients those of weight times the nats of this rank's counted targets -> this sum, ().

        tokens, targets, documents: (B/ranks,T), as `local_batch` has them. weight: one over the number of targets that
        all ranks count in this step. last: of the batches of this step.
        """
        tokens, targets, positions = self.local_positions(tokens, targets, documents)
        return self.steps.backward(tokens, targets, positions, documents, weight=weight, last=last)

    def local_positions(
        self, tokens: Tensor, targets: Tensor, documents: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of rows (B,T) the positions that this rank of cp computes, and which they are (N,); None: all of them."""
        size = axis_size(self.mesh, "cp")
        if size == 1:
            return tokens, targets, None
        if documents is not None:
            raise packed_over_cp()
        return split_batch(tokens, targets, self.mesh.get_local_rank("cp"), size)

    def reduce_gradients(self) -> None:
        """After the last backward pass: sum over the ranks what that pass has not."""
        place_like_parameters(self.parameters.values())
        self.steps.exchange_tied_gradients()
        sum_gradients(self.parameters.values(), self.mesh, self.left)

    def global_norm(self) -> Tensor:
        """Of the whole gradient, (), the same on every rank."""
        own = [parameter for name, parameter in self.parameters.items() if name not in self.steps.repeated]
        return global_norm([parameter.grad for parameter in own if parameter.grad is not None], self.mesh)

    def total(self, loss: Tensor) -> Tensor:
        """A loss summed over the ranks that have computed it: () -> ()"""
        return all_reduce(loss.detach().clone(), self.mesh, LOSS_AXES)

    @torch.no_grad()
    def eval_loss_sum(self, tokens: Tensor, targets: Tensor, documents: Tensor | None = None) -> Tensor:
        """The nats of all ranks' rows, of which these are this rank's: (B/ranks,T) -> ().  Without z-loss."""
        tokens, targets, positions = self.local_positions(tokens, targets, documents)
        nats = self.total(self.steps.eval_loss_sum(tokens, targets, positions, documents))
        for part in self.parts:
            drop_gathered(part)
        return nats
