"""Padded batches with masks: how to batch sequences without paging. For teaching, beside packed rows (torch.py).

Prompts are padded on the left, so that all sequences end in the same column of one KV cache and grow together. Each
sequence has positions of its own, counted from its first token, and a mask hides the padding before it:

    .  .  p  p | n  n  n          p prompt, n new, . padding
    p  p  p  p | n  n  n

Simple, and wasteful: padding is computed, every sequence gets memory for the longest, and none can join until all have
ended. The engine uses packed rows; a test shows that both give the same logits.
Tests: tests/vol3/test_runner_padded.py.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from nano_llama.vol2_torch import KVCache, Llama

PREFILL_TOKENS = 4096  # tokens of all sequences per forward pass: bounds the memory of activations


class PaddedBatch:
    """B sequences in one cache. Column s of the cache holds token s - padding[b] of sequence b."""

    def __init__(self, model: Llama, prompts: Sequence[Sequence[int]], cache_length: int):
        self.model, self.device = model, model.device
        longest = max(len(prompt) for prompt in prompts)
        padding = [longest - len(prompt) for prompt in prompts]
        rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        self.prompts = torch.tensor(rows, device=self.device)  # (B,T)
        self.padding = torch.tensor(padding, device=self.device)[:, None]  # (B,1)
        self.is_padded = any(padding)
        self.cache = KVCache(model.config, len(prompts), cache_length, self.device, self.model.dtype)

    @torch.no_grad()
    def prefill(self) -> np.ndarray:
        """Compute the prompts, in slices of columns -> (B,V): the logits of the last column."""
        B, T = self.prompts.shape
        width = max(1, PREFILL_TOKENS // B)
        for start in range(0, T, width):
            hidden = self._advance(self.prompts[:, start : start + width])  # (B,T,D)
        return self._logits(hidden)

    @torch.no_grad()
    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each sequence -> (B,V)."""
        return self._logits(self._advance(torch.tensor(tokens, device=self.device)[:, None]))

    @torch.no_grad()
    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these sequences, and release the memory of the others."""
        index = torch.tensor(rows, device=self.device)
        self.padding = self.padding[index]
        self.cache.keep_rows(index)

    def _advance(self, tokens: Tensor) -> Tensor:  # (B,T) -> (B,T,D)
        """Run the next columns through the model."""
        if not self.is_padded:
            return self.model.hidden_states(tokens, cache=self.cache)
        past, T = self.cache.length, tokens.shape[1]
        queries = torch.arange(past, past + T, device=self.device)  # (T,) columns
        keys = torch.arange(past + T, device=self.device)  # (S,) columns
        real = keys >= self.padding  # (B,S)
        mask = (keys <= queries[:, None]) & real[:, None]  # (B,T,S)
        # A query that is padding would attend to nothing, and a softmax over nothing is NaN, which would spread to the
        # values of the next layer. So it attends to itself; its result is not used.
        mask |= keys == queries[:, None]
        positions = (queries - self.padding).clamp(min=0)  # (B,T)
        return self.model.hidden_states(tokens, cache=self.cache, positions=positions, mask=mask[:, None])

    def _logits(self, hidden: Tensor) -> np.ndarray:  # (B,T,D) -> (B,V)
        return self.model.logits(hidden[:, -1]).float().cpu().numpy()
