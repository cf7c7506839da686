"""The Torch runner: Volume 2's model over a padded batch with one key/value cache, on any PyTorch device.

Right first: plain attention with masks. Not here: paging, fast kernels, choosing tokens.
Tests: tests/vol3/test_runner_torch.py, tests/parity/test_llm_transformers.py.

Prompts are padded on the left, so that all texts end in the same column of the cache and grow together. Each text
keeps positions of its own, counted from its first token, and a mask hides the padding before it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nano_llama.core.config import LlamaConfig
from nano_llama.vol2_torch import KVCache, Llama
from nano_llama.vol2_torch.device import resolve_device

PREFILL_TOKENS = 4096  # tokens of all texts that go through the model at once: bounds the activations' memory


class TorchRunner:
    """A loaded model; hands out batches."""

    def __init__(self, model: Llama, num_threads: int | None = None):
        self.model = model
        self.config: LlamaConfig = model.config
        self.num_threads = num_threads

    @classmethod
    def load(
        cls, path: str | Path, device: str = "auto", dtype: str = "auto", num_threads: int | None = None
    ) -> "TorchRunner":
        """Read a model onto a device. Raises UserError, EnvironmentFault, FormatError."""
        target = resolve_device(device)
        return cls(Llama.from_pretrained(path, device=target, dtype=resolve_dtype(dtype, target)), num_threads)

    @property
    def kv_bytes_per_token(self) -> int:
        c = self.config
        assert c.num_key_value_heads and c.head_dim, "LlamaConfig fills these in"
        return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * self.model.dtype.itemsize

    def batch(self, prompts: Sequence[Sequence[int]], cache_length: int) -> "PaddedBatch":
        return PaddedBatch(self, prompts, cache_length)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, and the wanted number of threads: given back afterwards, since PyTorch has one for all.

        Not inference_mode: it is no faster here, and tables that the model keeps would be unusable for training.
        """
        before = torch.get_num_threads()
        if self.num_threads is not None:
            torch.set_num_threads(self.num_threads)
        try:
            with torch.no_grad():
                yield
        finally:
            if self.num_threads is not None:
                torch.set_num_threads(before)


class PaddedBatch:
    """B texts in one cache. Column s of the cache holds, for text b, its token number s - padding[b]."""

    def __init__(self, runner: TorchRunner, prompts: Sequence[Sequence[int]], cache_length: int):
        self.runner, self.model = runner, runner.model
        self.device = self.model.device
        longest = max(len(prompt) for prompt in prompts)
        padding = [longest - len(prompt) for prompt in prompts]
        rows = [[0] * pad + list(prompt) for pad, prompt in zip(padding, prompts, strict=True)]
        self.prompts = torch.tensor(rows, device=self.device)  # (B,T)
        self.padding = torch.tensor(padding, device=self.device)[:, None]  # (B,1)
        self.is_padded = any(padding)
        self.cache = KVCache(runner.config, len(prompts), cache_length, self.device, self.model.dtype)

    def prefill(self) -> np.ndarray:
        """Read the prompts, in slices of columns -> (B,V): the logits of the last column."""
        B, T = self.prompts.shape
        width = max(1, PREFILL_TOKENS // B)
        with self.runner.computing():
            for start in range(0, T, width):
                hidden = self._advance(self.prompts[:, start : start + width])  # (B,T,D)
            return self._logits(hidden)

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        """Append one token to each text -> (B,V)."""
        with self.runner.computing():
            return self._logits(self._advance(torch.tensor(tokens, device=self.device)[:, None]))

    def keep(self, rows: Sequence[int]) -> None:
        """Let go of the other texts and their memory."""
        index = torch.tensor(rows, device=self.device)
        with self.runner.computing():
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
        # A query that is padding itself would see nothing, and a softmax over nothing is not a number, which would
        # spread to the next layer's values. So it sees itself; nobody reads it.
        mask |= keys == queries[:, None]
        positions = (queries - self.padding).clamp(min=0)  # (B,T)
        return self.model.hidden_states(tokens, cache=self.cache, positions=positions, mask=mask[:, None])

    def _logits(self, hidden: Tensor) -> np.ndarray:  # (B,T,D) -> (B,V)
        return self.model.logits(hidden[:, -1]).float().cpu().numpy()


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """float32, bfloat16 or float16. "auto": float32 on a CPU, where PyTorch's half precision is often emulated."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float16
