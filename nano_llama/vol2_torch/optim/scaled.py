"""Tensors moved by others times a factor, which may itself lie on the device. Tests: tests/vol2/test_optim.py."""

from collections.abc import Sequence

import torch
from torch import Tensor


def add_scaled_(weights: Sequence[Tensor], steps: Sequence[Tensor], factor: float | Tensor) -> None:
    """weights += factor * steps.  factor: a number, or (): a recorded step (a CUDA graph) reads it anew each time."""
    if isinstance(factor, Tensor):
        torch._foreach_add_(list(weights), torch._foreach_mul(list(steps), factor))
    else:
        torch._foreach_add_(list(weights), list(steps), alpha=factor)
