"""The Torch runner: Volume 2's model over packed rows with paged attention, in plain PyTorch, on any of its devices.

Attention gathers each sequence's blocks into a contiguous tensor and calls PyTorch's own: simple rather than fast.
Tests: tests/vol3/test_runner_torch.py, tests/vol3/test_llm_torch.py.

Shapes: N packed rows, D width, H query heads, G key/value heads, K head dim, V vocabulary, M slots = blocks * block
size, S cached tokens of a sequence, its new ones included.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.rope import require_constant_angles
from nano_llama.formats import open_text_model
from nano_llama.formats.peft import Adapter
from nano_llama.vol2_torch import Llama
from nano_llama.vol2_torch.device import resolve_device
from nano_llama.vol2_torch.model import Attention, rotate
from nano_llama.vol2_torch.vision import VisionLanguageModel
from nano_llama.vol3_engine.adapters import load_adapters
from nano_llama.vol3_engine.batch import PackedBatch
from nano_llama.vol3_engine.runner.torch_adapters import attach
from nano_llama.vol3_engine.runner.weight_watch import WeightWatch, digest_of


class TorchRunner:
    """A Volume 2 model that runs steps. Its weights are used as they are, also those of a model in training.

    shared: somebody else holds the model too, so its weights are compared in full after a pause (weight_watch.py).
    """

    def __init__(
        self,
        model: Llama,
        num_threads: int | None = None,
        *,
        shared: bool = True,
        adapters: Mapping[str, Adapter] | None = None,
    ):
        require_constant_angles(model.config, "The Torch runner")
        self.model = model
        self.config: LlamaConfig = model.config
        self.num_threads = num_threads
        self.adapters = tuple(adapters or ())
        self._adapted_rows = attach(model, adapters or {})
        self.block_size = 0
        self.cache: list[tuple[Tensor, Tensor]] = []  # for each layer keys and values, (M,G,K) each
        self._watch = WeightWatch(self._glance, self._digest if shared else None)

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str = "auto",
        dtype: str = "auto",
        num_threads: int | None = None,
        *,
        adapters: Mapping[str, Path] | None = None,
    ) -> "TorchRunner":
        """Read a model onto a device, and adapters (name -> folder) beside it.

        Raises UserError, EnvironmentFault, FormatError.
        """
        target = resolve_device(device)
        loaded = load_adapters(adapters, path)
        with open_text_model(path) as weights:
            model = Llama.from_weights(weights, target, resolve_dtype(dtype, target))
        return cls(model, num_threads, shared=False, adapters=loaded)

    @property
    def separate_prefill(self) -> bool:
        return False

    @property
    def kv_bytes_per_token(self) -> int:
        c = self.config
        assert c.num_key_value_heads and c.head_dim, "LlamaConfig fills these in"
        return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * self.model.dtype.itemsize

    @property
    def weight_bytes(self) -> int:
        skipped = 0 if self.config.tie_word_embeddings else self.model.model.embed_tokens.weight.nbytes
        return sum(parameter.nbytes for parameter in self.model.parameters()) - skipped

    def allocate(self, num_blocks: int, block_size: int) -> None:
        assert not self.cache, "memory is allocated once"
        c, self.block_size = self.config, block_size
        shape = (num_blocks * block_size, c.num_key_value_heads, c.head_dim)  # (M,G,K)
        try:
            self.cache = [(self._zeros(shape), self._zeros(shape)) for _ in range(c.num_hidden_layers)]
        except (MemoryError, torch.OutOfMemoryError):
            size = num_blocks * block_size * self.kv_bytes_per_token
            raise EnvironmentFault(
                f"{self.model.device} has no {size / 2**30:.2f} GiB left for keys and values.",
                hint="Lower kv_cache_memory.",
            ) from None

    def _zeros(self, shape: tuple) -> Tensor:
        """Zeros, since masked values are multiplied by 0 and must be finite."""
        if self.model.device.type != "cpu":
            return torch.zeros(shape, dtype=self.model.dtype, device=self.model.device)
        count = int(np.prod(shape))  # NumPy's zeros take a page of memory only when it is written
        return (
            torch.from_numpy(np.zeros(count * self.model.dtype.itemsize, np.uint8)).view(self.model.dtype).view(shape)
        )

    def weights_changed(self, thorough: bool) -> bool:
        changed = self._watch.changed(thorough)
        if changed and self.cache and self.cache[0][0].dtype != self.model.dtype:  # model.half(), say
            shape = tuple(self.cache[0][0].shape)
            self.cache = [(self._zeros(shape), self._zeros(shape)) for _ in self.cache]
        return changed

    def _glance(self) -> tuple[Any, ...]:
        return tuple((p.data_ptr(), p.dtype, p._version) for p in self.model.parameters())

    def _digest(self) -> int:
        return digest_of(map(_row_sums, self.model.parameters()))

    def execute(self, batch: PackedBatch) -> np.ndarray:
        device, model = self.model.device, self.model
        plan = plan_attention(batch, self.block_size, device, self.config.sliding_window)
        names = batch.adapter_of_rows()
        self._adapted_rows.select(names, device)
        with self.computing():
            cos, sin = model.rope.at(plan.positions, 0, batch.num_tokens, device, model.dtype)  # (N,K/2)
            x = model.model.embed_tokens(torch.tensor(batch.token_ids, device=device))  # (N,D)
            for given in batch.embeddings:
                x[given.row : given.row + len(given.values)] = torch.from_numpy(given.values).to(x)
            layers: Any = model.model.layers
            for layer, cache in zip(layers, self.cache, strict=True):
                attention = partial(paged_attention, layer.self_attn, cos=cos, sin=sin, cache=cache, plan=plan)
                x = layer.around(x, layer.input_layernorm, attention)
                x = layer.around(x, layer.post_attention_layernorm, layer.mlp)
            sampled = x[torch.tensor(batch.logit_rows, dtype=torch.long, device=device)]  # (R,D)
            self._adapted_rows.select([names[row] for row in batch.logit_rows], device)
            return model.logits(model.model.norm(sampled)).float().cpu().numpy()  # (R,V)

    def close(self) -> None:
        self.cache = []

    @contextmanager
    def computing(self) -> Iterator[None]:
        """No gradients, and num_threads threads; restored afterwards, since the number is PyTorch's global setting.

        Not inference_mode: it is no faster here, and tables that the model caches would be unusable for training.
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


def encoder_of(model: VisionLanguageModel) -> Callable[[np.ndarray], np.ndarray]:
    """A model's encoder as the engine calls it: pixel_values (N,3,S,S) -> rows (N,n,D)."""

    def encode(pixel_values: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return model.encode(torch.from_numpy(pixel_values).to(model.device)).float().cpu().numpy()

    return encode


def _row_sums(parameter: Tensor) -> np.ndarray:
    """What the digest reads: on a CPU the bits themselves, elsewhere sums that are made there."""
    integers = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[parameter.element_size()]
    bits = parameter.detach().view(integers)
    if bits.device.type == "cpu":
        return bits.numpy()
    rows = bits.reshape(bits.shape[0] if bits.dim() > 1 else 1, -1)
    return torch.cat([rows.sum(0, dtype=torch.int64), rows.sum(1, dtype=torch.int64)]).cpu().numpy()


class Group(NamedTuple):
    """B sequences with the same number T of new rows, whose attention is computed at once."""

    rows: Tensor  # (B,T) rows of the batch
    slots: Tensor  # (B,S) where their keys and values are; after the end of a shorter sequence any slot, masked
    mask: Tensor  # (B,1,T,S) True: may attend


class AttentionPlan(NamedTuple):
    """Positions, written slots and read slots of a step's rows: the same for every layer."""

    positions: Tensor  # (N,)
    slots: Tensor  # (N,) where the rows' own keys and values are written
    groups: list[Group]


def plan_attention(
    batch: PackedBatch, block_size: int, device: torch.device, sliding_window: int | None = None
) -> AttentionPlan:
    """Sequences with one row form one group, padded to the longest; every longer chunk is a group of its own."""
    single = [s for s in range(batch.num_sequences) if batch.starts[s + 1] - batch.starts[s] == 1]
    chunks = [s for s in range(batch.num_sequences) if batch.starts[s + 1] - batch.starts[s] > 1]
    members = ([single] if single else []) + [[s] for s in chunks]

    def slots(s: int) -> np.ndarray:  # (length,)
        at = np.arange(batch.length(s))
        return np.asarray(batch.block_tables[s])[at // block_size] * block_size + at % block_size

    positions = [np.arange(batch.positions[s], batch.length(s)) for s in range(batch.num_sequences)]
    own = [slots(s)[batch.positions[s] :] for s in range(batch.num_sequences)]
    groups = []
    for group in members:
        rows = np.stack([np.arange(batch.starts[s], batch.starts[s + 1]) for s in group])  # (B,T)
        table = np.zeros((len(group), max(batch.length(s) for s in group)), np.int64)  # (B,S)
        for row, s in zip(table, group, strict=True):
            row[: batch.length(s)] = slots(s)
        queries = np.stack([positions[s] for s in group])  # (B,T)
        columns, rows_at = np.arange(table.shape[1]), queries[:, None, :, None]  # (S,), (B,1,T,1)
        mask = columns <= rows_at  # (B,1,T,S): itself and what came before
        if sliding_window is not None:
            mask &= columns > rows_at - sliding_window
        groups.append(Group(*(torch.from_numpy(array).to(device) for array in (rows, table, mask))))
    where, written = (torch.from_numpy(np.concatenate(arrays)).to(device) for arrays in (positions, own))
    return AttentionPlan(where, written, groups)


def paged_attention(
    attention: Attention, x: Tensor, cos: Tensor, sin: Tensor, cache: tuple[Tensor, Tensor], plan: AttentionPlan
) -> Tensor:  # (N,D) -> (N,D)
    """Volume 2's Attention, with keys and values read from the blocks."""
    keys, values = cache  # (M,G,K) each
    q, k, v = (
        p(x).unflatten(-1, (-1, attention.head_dim)) for p in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = rotate(q, cos[:, None], sin[:, None]), rotate(k, cos[:, None], sin[:, None])  # (N,H|G,K)
    keys[plan.slots], values[plan.slots] = k, v  # written before any row reads: a row attends to itself too
    y = torch.empty_like(q)  # (N,H,K)
    for rows, slots, mask in plan.groups:
        query = q[rows].transpose(1, 2)  # (B,T,H,K) -> (B,H,T,K)
        past_k, past_v = keys[slots].transpose(1, 2), values[slots].transpose(1, 2)  # (B,S,G,K) -> (B,G,S,K)
        attended = F.scaled_dot_product_attention(query, past_k, past_v, attn_mask=mask, enable_gqa=attention.grouped)
        y[rows] = attended.transpose(1, 2)
    return attention.o_proj(y.flatten(1))  # (N,H*K) -> (N,D)


def device_type(name: str) -> str:
    """The type, "cpu", "cuda" or "mps", that a device's name means here. Raises UserError, EnvironmentFault."""
    return resolve_device(name).type


def resolve_dtype(name: str, device: torch.device) -> torch.dtype:
    """float32, bfloat16 or float16. "auto": float32 on a CPU, where half precision is often emulated."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[name]
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float16
