"""Pipeline parallelism: each rank has some of the layers, and a batch goes through the ranks in microbatches.

While one microbatch is in the last stage the next is in the stage before. At the beginning and the end of a step some
stages have nothing to do: with w stages and m microbatches (w - 1) / (m + w - 1) of the time, hence at least 2 w of
them. The order is torch's:

    gpipe        all forward passes, then all backward: keeps m microbatches.   Huang et al. 2019 (arXiv 1811.06965)
    1f1b         backward as soon as one can be: keeps w at most.               Narayanan et al. 2021 (arXiv 2104.04473)
    interleaved  1f1b with two stages a rank: half the idle time, more traffic. The same, section 2.2

In a step of N tokens each boundary is crossed by 2 N D numbers: hidden states forward, their gradients back. GPipe with
nothing but send and recv: naive_pp.py. Tests: tests/parallel/test_pp.py.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe, ScheduleInterleaved1F1B
from torch.distributed.tensor import DTensor

from nano_llama.core.errors import UserError
from nano_llama.vol2_torch.loss import HeadLoss, head_loss
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.stage import EMBEDDING, Stage

SCHEDULES = {"gpipe": ScheduleGPipe, "1f1b": Schedule1F1B, "interleaved": ScheduleInterleaved1F1B}


def choose_microbatches(batch: int, ranks: int) -> int:
    """Into how many microbatches a rank's `batch` rows are cut: the fewest that divide it and keep the ranks busy."""
    found = next((count for count in range(2 * ranks, batch + 1) if batch % count == 0), None)
    if found is None:
        raise UserError(
            f"pp={ranks}: a batch of {batch} rows is not enough for {2 * ranks} microbatches, two for each stage.",
            hint=f"Make the batch a multiple of {2 * ranks} for each rank of dp and fsdp.",
        )
    return found


class Pipeline:
    """The stages of this rank, and a step through all of them.

    group: the ranks of the axis. Every rank is called with the same batch, and computes its own part of it.
    head_loss, z_loss: as in `loss_sum`. autocast: what stages and loss compute in.
    """

    def __init__(
        self, model: Llama, group: ProcessGroup, *, schedule: str = "1f1b", microbatches: int | None = None,
        head_loss: HeadLoss = head_loss, z_loss: float = 0.0,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ):  # fmt: skip
        if schedule not in SCHEDULES:
            raise UserError(f"Unknown pipeline schedule {schedule!r}.", hint=f"One of {', '.join(SCHEDULES)}.")
        self.group, self.schedule, self.microbatches = group, schedule, microbatches
        self.head_loss, self.z_loss, self.autocast = head_loss, z_loss, autocast
        self.tied = model.config.tie_word_embeddings
        rank, size = group.rank(), group.size()
        self.num_stages = 2 * size if schedule == "interleaved" else size
        self.stages = {
            index: Stage(model, index, self.num_stages, autocast) for index in range(rank, self.num_stages, size)
        }
        self.weight = 1.0  # of each microbatch's loss, in the step that is being made
        self.built: tuple[torch.Size, ...] = ()  # the shapes that self.run is for

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The parameters of this rank, by their names in the whole model."""
        for stage in self.stages.values():
            yield from stage.named_parameters()

    @property
    def repeated(self) -> frozenset[str]:
        """The parameters that another rank has too and answers for: left out of the norm, and of the file, here."""
        return frozenset({EMBEDDING} if self.tied and self.is_last else ())

    @property
    def is_first(self) -> bool:
        return self.group.rank() == 0

    @property
    def is_last(self) -> bool:
        return self.group.rank() == self.group.size() - 1

    # -- a step ---------------------------------------------------------------------------------------------------

    def backward(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None, documents: Tensor | None = None, *,
        weight: float, last: bool = True,
    ) -> Tensor:  # fmt: skip
        """Add to the gradients those of weight times the nats, summed over the counted targets -> this sum, ().

        tokens, targets, documents: (B,T). positions: (T,). The ranks' sums add up to that of the batch: it is 0 on all
        but the last. weight: one over the number of targets counted on all ranks, as microbatches differ in theirs.
        """
        given = {} if documents is None else {"documents": documents}
        if positions is not None:
            given["positions"] = positions.expand(tokens.shape)  # (B,T), to be cut by rows as all else
        self._prepare(tokens)
        self.weight = weight
        losses: list[Tensor] = []
        inputs = (tokens,) if self.is_first else ()
        outputs = {"target": targets, "losses": losses} if self.is_last else {}
        self.run.step(*inputs, return_outputs=False, **outputs, **given)
        return torch.stack(losses).sum().detach() if losses else self._no_loss(tokens.device)

    def exchange_tied_gradients(self) -> None:
        """Sum the two gradients of a tied embedding, the lookup's and the head's, where both ends hold it.

        Once a step, after all its backward passes. Both add the same two numbers, so that they stay equal bit for bit.
        """
        if not self.tied or not (self.is_first or self.is_last):
            return
        grad = next(parameter.grad for name, parameter in self.named_parameters() if name == EMBEDDING)
        assert grad is not None, "a step has been made"
        here = grad.to_local() if isinstance(grad, DTensor) else grad
        there = torch.empty_like(here)
        peer = dist.get_global_rank(self.group, 0 if self.is_last else self.group.size() - 1)
        operations = [dist.P2POp(dist.isend, here, peer, self.group), dist.P2POp(dist.irecv, there, peer, self.group)]
        for work in dist.batch_isend_irecv(operations):
            work.wait()
        here += there

    def _loss(self, hidden: Tensor, targets: Tensor) -> Tensor:  # (B,T,D), (B,T) -> ()
        with self.autocast():
            weight = self.stages[self.num_stages - 1].head_weight
            return self.weight * self.head_loss(hidden.flatten(0, 1), weight, targets.flatten(), self.z_loss)

    def _no_loss(self, device: torch.device) -> Tensor:
        """What ranks contribute that have no head, in the format of the loss itself."""
        stage = next(iter(self.stages.values()))
        return torch.zeros((), dtype=torch.promote_types(stage.dtype, torch.float32), device=device)

    def _prepare(self, tokens: Tensor) -> None:
        """Plan the schedule for batches of this shape. It is told all shapes, or torch would run the model to see."""
        if self.built == (tokens.shape,):
            return
        B, T = tokens.shape
        count = self.microbatches or choose_microbatches(B, self.group.size())
        if B % count or count < 2 * self.group.size():
            raise UserError(
                f"pp={self.group.size()}: {B} rows cannot be cut into {count} microbatches.",
                hint=f"Choose a divisor of {B} that is at least {2 * self.group.size()}.",
            )
        ids = torch.empty(B // count, T, dtype=tokens.dtype, device="meta")
        stages = []
        for index, stage in self.stages.items():
            hidden = torch.empty(B // count, T, stage.config.hidden_size, dtype=stage.dtype, device="meta")
            entering = ids if stage.is_first else hidden.clone().requires_grad_()
            stages.append(
                PipelineStage(
                    stage, index, self.num_stages, tokens.device, input_args=entering,
                    output_args=hidden.requires_grad_(), group=self.group,
                )
            )  # fmt: skip
        kind = SCHEDULES[self.schedule]
        self.run = kind(
            stages if self.schedule == "interleaved" else stages[0], n_microbatches=count, loss_fn=self._loss,
            scale_grads=False,
        )  # fmt: skip
        self.built = (tokens.shape,)

    # -- without a gradient ---------------------------------------------------------------------------------------

    @torch.no_grad()
    def hidden_states(
        self, tokens: Tensor, positions: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor | None:
        """tokens (B,T), as they are -> (B,T,D) on the last rank, None on others.  For evaluation, of any shape."""
        rank, size = self.group.rank(), self.group.size()
        x = tokens
        for index in range(self.num_stages):
            here, after = index % size, (index + 1) % size
            if rank == here:
                x = self.stages[index](x, positions=positions, documents=documents)
                if index < self.num_stages - 1:
                    dist.send(x.contiguous(), dist.get_global_rank(self.group, after), self.group)
            elif rank == after and index < self.num_stages - 1:
                stage = self.stages[index + 1]
                x = tokens.new_empty((*tokens.shape, stage.config.hidden_size), dtype=stage.dtype)  # (B,T,D)
                dist.recv(x, dist.get_global_rank(self.group, here), self.group)
        return x if self.is_last else None

    @torch.no_grad()
    def eval_loss_sum(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None, documents: Tensor | None = None
    ) -> Tensor:
        """The nats summed over the counted targets, without z-loss: on the last rank, 0 on others."""
        hidden = self.hidden_states(tokens, positions, documents)
        if hidden is None:
            return self._no_loss(tokens.device)
        with self.autocast():
            weight = self.stages[self.num_stages - 1].head_weight
            return self.head_loss(hidden.flatten(0, 1), weight, targets.flatten(), 0.0)
