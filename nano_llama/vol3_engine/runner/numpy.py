"""The NumPy runner: Volume 1's model over packed rows and a paged KV cache. The reference of the CPU runner's step.

To Volume 1 a packed batch is one long sequence (1,N,D). Embedding, norms, projections and MLP treat each row by itself,
so they stay as they are. Only four things know which sequence a row belongs to, and get it from here: the angles of
RoPE, where keys and values are written, attention, which runs sequence by sequence, and adapters.
Tests: tests/vol3/test_runner_numpy.py.

Shapes: N packed rows, D width, H query heads, G key/value heads, K head dim, V vocabulary, M slots = blocks * block
size, T new and S cached tokens of a sequence, the new ones included.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nano_llama.core.errors import EnvironmentFault
from nano_llama.core.names import EMBED, parameter_shapes
from nano_llama.core.rope import rope_tables
from nano_llama.formats import open_text_model
from nano_llama.formats.peft import Adapter
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.data_parallel import blas_threads
from nano_llama.vol1_numpy.layer import Context
from nano_llama.vol1_numpy.masks import causal_mask, window_mask
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.ops.registry import PLAIN, Ops
from nano_llama.vol3_engine.adapters import LowRankUpdate, load_adapters, low_rank_updates
from nano_llama.vol3_engine.batch import PackedBatch
from nano_llama.vol3_engine.runner.weight_watch import WeightWatch, digest_of, sample_of

UpdateOf = dict[int, LowRankUpdate]


class NumpyRunner:
    """A Volume 1 model that runs steps. Its weights are used as they are, also those of a model in training.

    shared: somebody else holds the model too, so its weights are compared in full after a pause (weight_watch.py).
    RoPE of the kind "dynamic" works too: its angles change only beyond the context, where the scheduler never goes.
    """

    separate_prefill = False

    def __init__(
        self,
        model: Llama,
        num_threads: int | None = None,
        *,
        shared: bool = True,
        adapters: Mapping[str, Adapter] | None = None,
    ):
        self.model, self.config, self.num_threads = model, model.config, num_threads
        self.adapters = tuple(adapters or ())
        matrices = {name.removesuffix(".weight"): param for name, param in model.params.items()} | {
            "lm_head": model.head
        }
        self._updates: dict[str, UpdateOf] = {}  # adapter -> what it makes of a matrix, by the matrix's id
        for name, adapter in (adapters or {}).items():
            updates = low_rank_updates(adapter, matrices.__getitem__)
            self._updates[name] = {id(matrices[module]): update for module, update in updates.items()}
        self.block_size = 0
        self._watch = WeightWatch(self._glance, self._digest if shared else None)

    @classmethod
    def load(
        cls, path: str | Path, num_threads: int | None = None, *, adapters: Mapping[str, Path] | None = None
    ) -> "NumpyRunner":
        """Read a model, as float32, and adapters (name -> folder) beside it. Raises UserError, FormatError."""
        loaded = load_adapters(adapters, path)
        with open_text_model(path) as weights:
            params = {name: np.array(weights[name], np.float32, order="C") for name in parameter_shapes(weights.config)}
            model = Llama(weights.config, params)
        return cls(model, num_threads, shared=False, adapters=loaded)

    @property
    def kv_bytes_per_token(self) -> int:
        c = self.config
        return 2 * c.num_hidden_layers * c.num_key_value_heads * c.head_dim * self.model.dtype.itemsize

    @property
    def weight_bytes(self) -> int:
        skipped = 0 if self.config.tie_word_embeddings else self.model.params[EMBED].nbytes
        return sum(array.nbytes for array in self._arrays()) - skipped

    def allocate(self, num_blocks: int, block_size: int) -> None:
        assert not self.block_size, "memory is allocated once"
        c, self.block_size = self.config, block_size
        shape = (c.num_hidden_layers, 1, c.num_key_value_heads, num_blocks * block_size, c.head_dim)  # (L,1,G,M,K)
        try:  # zeros take a page of memory only when it is written
            self.keys, self.values = (np.zeros(shape, self.model.dtype) for _ in range(2))
        except (MemoryError, ValueError):
            size = num_blocks * block_size * self.kv_bytes_per_token
            raise EnvironmentFault(
                f"This machine has no {size / 2**30:.2f} GiB left for keys and values.", hint="Lower kv_cache_memory."
            ) from None

    def weights_changed(self, thorough: bool) -> bool:
        return self._watch.changed(thorough)

    def _arrays(self) -> list[Array]:
        """The model's weights, and those of an adapter that it is trained with."""
        return list({**self.model.params, **self.model.trainable}.values())

    def _digest(self) -> int:
        return digest_of(self._arrays())

    def _glance(self) -> tuple[Any, ...]:
        arrays = self._arrays()
        return (*(array.ctypes.data for array in arrays), sample_of(arrays))

    def execute(self, batch: PackedBatch) -> np.ndarray:
        model, config = self.model, self.config
        rows = [SequenceRows.of(batch, s, self.block_size) for s in range(batch.num_sequences)]
        positions = np.concatenate([np.arange(r.length - r.num_new, r.length) for r in rows])  # (N,)
        cos, sin = rope_tables(config, positions, model.dtype)  # (N,K/2)
        adapter_of = np.array(batch.adapter_of_rows(), object)  # (N,)
        ctx = Context(
            ops=replace(
                model.ops,
                attention=model.ops.attention._replace(
                    forward=packed_attention(rows, model.ops, config.sliding_window)
                ),
                linear=model.ops.linear._replace(forward=adapted_linear(adapter_of, self._updates, model.ops)),
            ),
            head_dim=config.head_dim, eps=config.rms_norm_eps, cos=cos, sin=sin, mask=None,
            past=PagedCache(self.keys, self.values, np.concatenate([r.slots[-r.num_new :] for r in rows])),
        )  # fmt: skip
        # A matrix times a single row takes less time than threads need to synchronize, above all on a busy machine.
        with blas_threads(1 if batch.num_tokens == 1 else self.num_threads):
            x, _ = model.ops.embedding.forward(np.array([batch.token_ids]), model.params[EMBED])  # (1,N,D)
            for given in batch.embeddings:
                x[0, given.row : given.row + len(given.values)] = given.values
            for i in range(config.num_hidden_layers):
                x, _ = model.layer_forward(x, i, ctx)  # (1,N,D)
            h, _ = model.norm_forward(x[:, batch.logit_rows], ctx)  # (1,R,D)
            head = adapted_linear(adapter_of[batch.logit_rows], self._updates, model.ops)
            return head(h, model.head)[0][0].astype(np.float32, copy=False)  # (R,V)

    def close(self) -> None:
        self.keys = self.values = np.empty(0)


class SequenceRows(NamedTuple):
    """The rows of one sequence in the batch, and where its tokens are in the cache."""

    rows: slice  # T rows of the batch
    slots: Array  # (S,) of all its tokens so far; the last T are its new ones

    @property
    def num_new(self) -> int:
        return self.rows.stop - self.rows.start

    @property
    def length(self) -> int:
        return len(self.slots)

    @classmethod
    def of(cls, batch: PackedBatch, s: int, block_size: int) -> "SequenceRows":
        at = np.arange(batch.length(s))
        slots = np.asarray(batch.block_tables[s])[at // block_size] * block_size + at % block_size
        return cls(slice(batch.starts[s], batch.starts[s + 1]), slots)


class PagedCache:
    """What Volume 1's layers see of the KV cache: they hand in keys and values of the new rows."""

    def __init__(self, keys: Array, values: Array, slots: Array):
        self.keys, self.values = keys, values  # (L,1,G,M,K) each
        self.slots = slots  # (N,) where the rows' own keys and values go

    def append(self, layer: int, k: Array, v: Array) -> tuple[Array, Array]:
        """Write k, v (1,G,N,K); return the layer's whole cache, (1,G,M,K) each, from which attention gathers."""
        keys, values = self.keys[layer], self.values[layer]
        keys[:, :, self.slots], values[:, :, self.slots] = k, v
        return keys, values


def packed_attention(
    sequences: list[SequenceRows], ops: Ops, sliding_window: int | None = None
) -> Callable[..., tuple[Array, Any]]:
    """Volume 1's attention, in which each sequence sees its own tokens only, or those within the window."""

    def forward(q: Array, keys: Array, values: Array, mask: None) -> tuple[Array, None]:
        """q: (1,H,N,K)   keys, values: (1,G,M,K)   -> (1,H,N,K)"""
        y = np.empty_like(q)
        for s in sequences:
            T, S = s.num_new, s.length
            # For one query the T x S matrix is a single row: cutting it into tiles would only cost time.
            attention = (PLAIN if T == 1 else ops).attention
            k, v = keys[:, :, s.slots], values[:, :, s.slots]  # (1,G,S,K)
            seen = causal_mask(T, S - T) & window_mask(sliding_window or S, T, S - T)
            y[:, :, s.rows], _ = attention.forward(q[:, :, s.rows], k, v, seen)
        return y, None

    return forward


def adapted_linear(adapter_of: Array, updates: Mapping[str, UpdateOf], ops: Ops) -> Callable[..., tuple[Array, Any]]:
    """Volume 1's linear layer, and the low-rank updates of the rows that have an adapter. adapter_of (N,): names."""

    def forward(x: Array, weight: Array) -> tuple[Array, Any]:
        """x: (1,N,in)   weight: (out,in)   -> (1,N,out)"""
        y, _ = ops.linear.forward(x, weight)
        for name, update_of in updates.items():
            rows = np.flatnonzero(adapter_of == name)
            if len(rows) and id(weight) in update_of:
                A, B, rescaling = update_of[id(weight)]
                y[:, rows] = rescaling * y[:, rows] + x[:, rows] @ A.T @ B.T
        return y, None

    return forward
