"""One step of training in PyTorch: the gradient of some batches, and the update with it.

`EagerStep` launches kernel after kernel when it is asked; graph_step.py has them recorded and launched as one.
Tests: tests/vol2/test_trainer.py.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.data.batches import Batch
from nano_llama.training.backend import StepResult
from nano_llama.vol2_torch.optim import LR_SCALE
from nano_llama.vol2_torch.strategy import Strategy


class Step(Protocol):
    """asynchronous: whether `begin` returns while the device still computes."""

    asynchronous: bool

    def prefetch(self, batches: Sequence[Batch]) -> None:
        """These come next: their copies may be made."""
        ...

    def begin(self, batches: Sequence[Batch], scale: float) -> None:
        """Start on the mean gradient over all counted targets of `batches`, from `scale` times the loss."""
        ...

    def result(self) -> StepResult:
        """Wait for that gradient."""
        ...

    def update(self, lr: float) -> None:
        """Clip the gradient, and update the weights with it."""
        ...

    def zero_grad(self) -> None:
        """Clear the gradient without an update."""
        ...


class EagerStep:
    """Every kernel is launched by itself. clip: the gradient's largest norm; 0: it is not clipped."""

    asynchronous = False

    def __init__(
        self, model: nn.Module, strategy: Strategy, optimizers: Sequence[torch.optim.Optimizer], clip: float = 0.0
    ):
        self.model, self.strategy, self.optimizers, self.clip = model, strategy, optimizers, clip
        self.losses: list[Tensor] = []
        self.norm: Tensor | None = None  # of the gradient that is held

    def prefetch(self, batches: Sequence[Batch]) -> None:
        """Each is copied when it is computed with."""

    def begin(self, batches: Sequence[Batch], scale: float) -> None:
        counted = counted_targets(batches)
        self.losses = [self.strategy.backward(batch, counted, scale, last=batch is batches[-1]) for batch in batches]
        self.strategy.finish_gradients()
        if scale != 1.0:
            torch._foreach_mul_(held_gradients(self.strategy), 1.0 / scale)
        self.norm = self.strategy.norm()

    def result(self) -> StepResult:
        assert self.norm is not None, "a result follows a gradient"
        return step_result(torch.stack([*self.losses, self.norm]).tolist())  # the host waits for the device once

    def update(self, lr: float) -> None:
        assert self.norm is not None, "an update follows a gradient"
        if self.clip:
            self.strategy.clip(self.norm, self.clip)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get(LR_SCALE, 1.0)
            optimizer.step()
        self.zero_grad()

    def zero_grad(self) -> None:
        self.model.zero_grad()
        self.losses, self.norm = [], None


def counted_targets(batches: Sequence[Batch]) -> int:
    """Of all batches; 1 where none is counted, as it divides."""
    return max(sum(int(np.count_nonzero(targets != IGNORE_INDEX)) for _, targets, *_ in batches), 1)


def held_gradients(strategy: Strategy) -> list[Tensor]:
    return [parameter.grad for parameter in strategy.parameters.values() if parameter.grad is not None]


def step_result(figures: Sequence[float]) -> StepResult:
    """From the parts of the loss, one a batch, and behind them the gradient's norm."""
    *parts, norm = figures
    return StepResult(sum(parts), norm)
