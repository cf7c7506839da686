"""Runners: where the tensors are. The engine above knows ids and logits only.

    torch.py      Volume 2's model on any PyTorch device

A runner is asked in these words, so that another can stand in its place; the sequences' texts, seeds and ends are none
of its business. Not here: policy. Tests: tests/vol3/test_runner_torch.py.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from nano_llama.core.config import LlamaConfig


class Batch(Protocol):
    """Some texts that run together, with their keys and values."""

    def prefill(self) -> np.ndarray:
        """Read the prompts; the logits of each one's last token, (B,V) float32."""
        ...

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each text -> the logits that follow, (B,V) float32."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of all texts but these rows; those that stay are numbered anew in this order."""
        ...


class Runner(Protocol):
    """A model, ready to run batches."""

    config: LlamaConfig

    @property
    def kv_bytes_per_token(self) -> int:
        """What one token costs in the cache, all layers together."""
        ...

    def batch(self, prompts: Sequence[Sequence[int]], cache_length: int) -> Batch:
        """Set memory aside for these prompts and what will follow: cache_length places each, padding included."""
        ...
