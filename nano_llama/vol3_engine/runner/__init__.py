"""The Runner protocol: weights, KV cache and kernels behind five methods. The engine sees ids, blocks and logits only.

    numpy.py      Volume 1's model with paged attention in NumPy: the reference
    torch.py      Volume 2's model with paged attention in plain PyTorch, on any device;  torch_adapters.py  beside it
    padded.py     not a runner: Volume 2's model over padded batches with masks, as it is done without paging
    ../cpu/       the CPU runner, with compiled kernels of its own

Not here: policy (scheduler.py). Tests: tests/vol3/test_runner_numpy.py, tests/vol3/test_runner_torch.py,
tests/vol3/cpu/test_runner.py.
"""

from typing import Protocol

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.vol3_engine.batch import PackedBatch


class Runner(Protocol):
    """A model, ready to run steps. Called by one thread at a time."""

    config: LlamaConfig
    adapters: tuple[str, ...]  # the names that a batch's sequences may carry

    @property
    def separate_prefill(self) -> bool:
        """Whether prefill and decode rows use different kernels: the same token then has other bits in a prompt."""
        ...

    @property
    def kv_bytes_per_token(self) -> int:
        """Size of one token in the KV cache, over all layers."""
        ...

    @property
    def weight_bytes(self) -> int:
        """Weights that every step reads: all but an untied embedding, of which a step reads one row per token."""
        ...

    def allocate(self, num_blocks: int, block_size: int) -> None:
        """Allocate the KV cache, once, before the first step. Blocks are numbered 0 ... num_blocks-1.

        Raises EnvironmentFault if the machine does not have enough memory.
        """
        ...

    def weights_changed(self, thorough: bool) -> bool:
        """Whether the weights are other ones than at the last call, so that what the cache holds is stale.

        thorough: find changes that a glance does not; asked after a pause only. Weights that nobody else holds do not
        change.
        """
        ...

    def execute(self, batch: PackedBatch) -> np.ndarray:
        """Run the batch's rows through the model and write their keys and values -> logits (R,V), float32.

        In each layer the keys and values of all rows are written before any row attends: through its block table a row
        may read what another sequence's row writes in the same batch. The array may be the runner's own buffer, valid
        until the next call.
        """
        ...

    def close(self) -> None:
        """Release threads and memory. The runner cannot be used afterwards."""
        ...
