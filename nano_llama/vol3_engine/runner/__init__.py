"""Runners: where the tensors are. The engine above knows ids, blocks and logits only.

    torch.py      Volume 2's model with paged attention in plain PyTorch, on any device
    padded.py     the same model over padded batches with masks: how it is done without paging, for comparison
    ../cpu/       our own kernels on a CPU

A runner is asked in these words, so that another can stand in its place; the sequences' texts, seeds and ends are none
of its business. Not here: policy. Tests: tests/vol3/cpu/test_runner.py, tests/vol3/test_runner_torch.py.
"""

from typing import Protocol

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.vol3_engine.batch import PackedBatch


class Runner(Protocol):
    """A model, ready to run steps. One thread at a time calls it."""

    config: LlamaConfig

    @property
    def separate_prefill(self) -> bool:
        """Whether prefill and decode rows take different kernels: the same token then has other bits in a prompt."""
        ...

    @property
    def kv_bytes_per_token(self) -> int:
        """What one token costs in the cache, all layers together."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Weights that every step reads: all of them, of an embedding without the head's weights one row a token."""
        ...

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """Set memory for keys and values aside, once, before the first step. Blocks are numbered 0 ... num_blocks-1.

        Raises EnvironmentFault where the machine has not so much.
        """
        ...

    def execute(self, batch: PackedBatch) -> np.ndarray:
        """Run the batch's rows through the model, their keys and values into their blocks -> logits (R,V) float32.

        In each layer all rows' keys and values are written before any row attends: a row may read, through its block
        table, what another sequence's row of the same batch writes. The array may be the runner's own: it is valid
        until the next call.
        """
        ...

    def close(self) -> None:
        """Let threads and memory go. The runner is not used afterwards."""
        ...
