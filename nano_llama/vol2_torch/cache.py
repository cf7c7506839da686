"""The KV cache: keys and values of earlier tokens, so that a new token costs one row and not the whole text again.

Not here: paging (vol3_engine/blocks.py). Tests: tests/vol2/test_model.py.
"""

import torch
from torch import Tensor

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.rope import require_constant_angles


class LayerCache:
    """One layer's keys and values: buffers (B,G,max_length,K), filled from the front."""

    def __init__(self, keys: Tensor, values: Tensor):
        self.keys, self.values = keys, values
        self.filled = 0

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B,G,T,K) and return all so far (B,G,S,K)."""
        start, end = self.filled, self.filled + k.shape[2]
        if end > self.keys.shape[2]:
            raise UserError(
                f"The KV cache holds {self.keys.shape[2]} tokens and {end} are needed.",
                hint="Create it with a larger max_length.",
            )
        self.keys[:, :, start:end] = k
        self.values[:, :, start:end] = v
        self.filled = end
        return self.keys[:, :, :end], self.values[:, :, :end]


class KVCache:
    """Keys and values of every layer, allocated once for `batch_size` sequences of at most `max_length` tokens."""

    def __init__(
        self,
        config: LlamaConfig,
        batch_size: int,
        max_length: int,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ):
        require_constant_angles(config, "A KV cache of Volume 2")
        shape = (batch_size, config.num_key_value_heads, max_length, config.head_dim)
        self.layers = [
            LayerCache(*(torch.zeros(shape, device=device, dtype=dtype) for _ in range(2)))
            for _ in range(config.num_hidden_layers)
        ]

    @property
    def length(self) -> int:
        return self.layers[-1].filled

    def truncate(self, length: int) -> None:
        """Drop everything after the first `length` tokens."""
        for layer in self.layers:
            layer.filled = min(layer.filled, length)

    def keep_rows(self, rows: Tensor) -> None:
        """Keep only these sequences of the batch, in this order."""
        for layer in self.layers:
            layer.keys, layer.values = layer.keys[rows], layer.values[rows]
