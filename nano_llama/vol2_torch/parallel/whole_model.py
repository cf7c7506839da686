"""Forward and backward on a mesh without pp, where each rank has all layers (or its slice of each).

pp.py's Pipeline does the same for ranks that have some of them. Tests: tests/parallel/test_training.py.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from nano_llama.vol2_torch.loss import HeadLoss
from nano_llama.vol2_torch.model import Llama
from nano_llama.vol2_torch.parallel.ddp import LossSum, apply_ddp


class WholeModel:
    """ddp: the mesh over which DistributedDataParallel sums the gradients; None: somebody else does.

    head_loss, z_loss: as in `loss_sum`. autocast: what the forward pass computes in.
    """

    repeated: frozenset[str] = frozenset()  # parameters that another rank answers for

    def __init__(
        self, model: Llama, ddp: DeviceMesh | None, head_loss: HeadLoss, z_loss: float,
        autocast: Callable[[], AbstractContextManager],
    ):  # fmt: skip
        self.head_loss, self.z_loss, self.autocast = head_loss, z_loss, autocast
        self.plain = LossSum(model)
        self.ddp = apply_ddp(self.plain, ddp) if ddp is not None else None

    def backward(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None, documents: Tensor | None, *, weight: float,
        last: bool,
    ) -> Tensor:  # fmt: skip
        """Add to the gradients those of weight times the nats, summed over the counted targets -> this sum, ().

        tokens, targets, documents: (B,T). positions: (T,). last: gradients that ranks hold whole are summed only then.
        """
        with self.ddp.no_sync() if self.ddp is not None and not last else nullcontext():
            with self.autocast():
                loss = (self.ddp or self.plain)(tokens, targets, self.head_loss, self.z_loss, documents, positions)
            (weight * loss).backward()
        return weight * loss.detach()

    def exchange_tied_gradients(self) -> None:
        """A tied embedding is one matrix here: autograd has summed its gradients."""

    @torch.no_grad()
    def eval_loss_sum(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None, documents: Tensor | None
    ) -> Tensor:
        """The nats, without z-loss and gradient."""
        with self.autocast():
            return self.plain(tokens, targets, self.head_loss, 0.0, documents, positions)
