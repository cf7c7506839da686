"""The LLaMA in NumPy: embedding, layers, norm, head, loss; and the same list backwards.

A layer's inside is in layer.py; the model with an adapter is in finetune.py.
Tests: tests/vol1/test_vol1_model.py, tests/vol1/test_vol1_model_gradients.py, tests/parity/test_vol1_transformers.py.

A batch is cut into shards, one per thread, each run with single-threaded BLAS: data parallelism inside one process.
Since the loss is a sum over positions divided by a number known beforehand, the gradient of a batch is the sum of its
shards' gradients. Micro-batches are the same cut made in time instead of space. Shards are summed in a fixed order:
the same thread count gives the same bits.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import UserError
from nano_llama.core.init import check_params, init_params
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.machine import allowed_cpus
from nano_llama.core.names import EMBED, LM_HEAD, NORM, layer_name, layer_shapes, parameter_shapes
from nano_llama.core.rope import rope_tables
from nano_llama.vol1_numpy.data_parallel import add_grads, micro_batches, rows_of, run_shards, shards
from nano_llama.vol1_numpy.layer import Context, Grads, Params, Past
from nano_llama.vol1_numpy.masks import causal_mask, window_mask
from nano_llama.vol1_numpy.norm_placement import LAYERS
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.gated import with_activation
from nano_llama.vol1_numpy.ops.registry import FAST, OpPair, Ops


class Llama:
    """tokens (B,T) -> logits (B,T,V), and the gradient of the cross-entropy for every parameter.

    Build it with `Llama.init(config, seed)` (fresh weights) or `Llama.from_pretrained(path)`. `params` is
    {name: array}, in core/names.py's names and order; an optimizer changes the arrays in place.
    """

    def __init__(self, config: LlamaConfig, params: dict[str, Array], *, ops: Ops = FAST, threads: int | None = None):
        """params: all of them, in float32 or float64. threads: how many shards a batch is cut into; by default one per
        CPU that this process may use. Raises UserError where a parameter is missing or has another shape or dtype.
        """
        check_params(config, params, "params")
        for name, param in params.items():
            if param.dtype not in (np.float32, np.float64):
                raise UserError(f"params: {name} is {param.dtype}.", hint="Volume 1 computes in float32 or float64.")
        self.config, self.params, self.ops = config, params, with_activation(ops, config.hidden_act)
        self.threads = threads or len(allowed_cpus())

    # -- forward --------------------------------------------------------------------------------------------------

    def forward(self, tokens: Array, *, mask: Array | None = None, past: Past | None = None) -> Array:
        """tokens (B,T) -> logits (B,T,V).

        mask: boolean, broadcastable to (B,1,T,S), True may attend; None: causal. It replaces the causal mask, so
        combine it:  causal_mask(T) & padding_mask(present).  A config's sliding_window holds with any mask.
        past: the keys and values of the tokens before these.
        Raises UserError for tokens that are not ids of this vocabulary.
        """
        return self.logits(self.hidden_states(tokens, mask=mask, past=past))

    def hidden_states(self, tokens: Array, *, mask: Array | None = None, past: Past | None = None) -> Array:
        """As `forward`, without the head: (B,T) -> (B,T,D), where only a few positions need logits."""
        tokens = check_ids(tokens, self.config.vocab_size)
        return self._hidden(tokens, self._context(tokens.shape[1], mask, past), keep="nothing")[0]

    def logits(self, hidden: Array) -> Array:
        """The head: (...,D) -> (...,V)."""
        return self.ops.linear.forward(hidden, self.head)[0]

    def _hidden(self, tokens: Array, ctx: Context, keep: str = "caches") -> tuple[Array, Cache, list[Any], Cache]:
        """Everything before the head: (B,T) -> (B,T,D), and what the backward needs of it.

        keep: of each layer its saved activations ("caches"), its input, to run it again ("inputs"), or "nothing".
        """
        kept: list[Any] = []
        x, embed = ctx.ops.embedding.forward(tokens, self.params[EMBED])  # (B,T,D)
        for i in range(self.config.num_hidden_layers):
            y, cache = self.layer_forward(x, i, ctx)  # (B,T,D)
            if keep != "nothing":
                kept.append(cache if keep == "caches" else x)
            x = y
        h, norm = self.norm_forward(x, ctx)  # (B,T,D)
        return h, embed, kept, norm

    # -- loss and gradients ---------------------------------------------------------------------------------------

    def loss(self, tokens: Array, targets: Array, *, mask: Array | None = None, z_loss: float = 0.0) -> float:
        """The loss alone, as `loss_and_grads` defines it."""

        def one(rows: slice) -> float:
            h, *_ = self._hidden(tokens[rows], self._context(T, rows_of(mask, rows)), keep="nothing")
            counted = targets[rows] != IGNORE_INDEX  # (B,T)
            loss, _ = self.ops.cross_entropy.forward(self.logits(h[counted]), targets[rows][counted], z_loss=z_loss)
            return loss * weight(targets[rows])

        tokens, targets, weight = self._check_batch(tokens, targets)
        B, T = tokens.shape
        return sum(run_shards(one, shards(B, self.threads)))

    def loss_and_grads(
        self,
        tokens: Array,
        targets: Array,
        *,
        mask: Array | None = None,
        z_loss: float = 0.0,
        micro_batch: int | None = None,
        recompute: bool = False,
    ) -> tuple[float, dict[str, Array]]:
        """The mean cross-entropy over counted targets, in nats, and its gradient for every tensor of `trainable`.

        tokens, targets: (B,T); targets[b,t] belongs to logits[b,t], no shift; -100 does not count. All ignored: the
        loss is 0 and so are the gradients. A tied model has no lm_head.weight: its embedding gets both gradients.
        mask: as in `forward`. z_loss: weight of the mean squared log-sum-exp. micro_batch: at most this many rows at
        once in each thread (gradient accumulation). recompute: keep each layer's input only, and run its forward
        again in the backward: a third more work, about 1/L of the memory. Neither changes the result, save rounding.
        """

        def one(rows: slice) -> tuple[float, dict[str, Array]]:
            total, sums = 0.0, dict[str, Array]()
            for part in micro_batches(rows, micro_batch):
                ctx = self._context(T, rows_of(mask, part))
                loss, grads = self._one(tokens[part], targets[part], weight(targets[part]), ctx, z_loss, recompute)
                total, sums = total + loss, add_grads(sums, grads)
            return total, sums

        tokens, targets, weight = self._check_batch(tokens, targets)
        B, T = tokens.shape
        loss, sums = 0.0, dict[str, Array]()
        for shard_loss, grads in run_shards(one, shards(B, self.threads)):
            loss, sums = loss + shard_loss, add_grads(sums, grads)
        return loss, {name: sums[name] for name in self.trainable}

    def _one(
        self, tokens: Array, targets: Array, weight: float, ctx: Context, z_loss: float, recompute: bool
    ) -> tuple[float, dict[str, Array]]:
        """Forward and backward of one shard; `weight` is its part of the batch's counted targets."""
        ops = ctx.ops
        grads: dict[str, Array] = {}

        h, embed, caches, norm = self._hidden(tokens, ctx, keep="inputs" if recompute else "caches")
        # Only the N positions with a target that counts need logits, the largest array there is; the others' h, which
        # nothing reads, has a gradient of zero.
        counted = targets != IGNORE_INDEX  # (B,T)
        logits, head = ops.linear.forward(h[counted], self.head)  # (N,V)
        loss, entropy = ops.cross_entropy.forward(logits, targets[counted], z_loss=z_loss)

        dlogits = ops.cross_entropy.backward(weight, entropy)  # (N,V)
        dh = np.zeros_like(h)  # (B,T,D)
        dh[counted], grads[LM_HEAD] = ops.linear.backward(dlogits, head)  # (N,D)
        dx, norm_grads = self.norm_backward(dh, norm, ctx)  # (B,T,D)
        grads |= norm_grads
        for i in reversed(range(self.config.num_hidden_layers)):
            cache = self.layer_forward(caches.pop(), i, ctx)[1] if recompute else caches.pop()
            dx, layer_grads = self.layer_backward(dx, cache, i, ctx)  # (B,T,D)
            grads |= layer_grads
        grads[EMBED] = ops.embedding.backward(dx, embed)  # (V,D)
        return loss * weight, self.collect_grads(grads)

    # -- the parts a study replaces -------------------------------------------------------------------------------

    def layer_forward(self, x: Array, index: int, ctx: Context) -> tuple[Array, Cache]:
        """Layer `index`: (B,T,D) -> (B,T,D)."""
        return LAYERS[self.config.norm_placement].forward(x, self.layer_params(index), ctx, index)

    def layer_backward(self, dx: Array, cache: Cache, index: int, ctx: Context) -> tuple[Array, dict[str, Array]]:
        """-> dx (B,T,D), {name: gradient} of the layer's parameters."""
        grads: Grads = {}
        dx = LAYERS[self.config.norm_placement].backward(dx, cache, ctx, grads)
        return dx, {layer_name(index, part): grad for part, grad in grads.items()}

    def norm_forward(self, x: Array, ctx: Context) -> tuple[Array, Cache]:
        """The last norm, before the head: (B,T,D) -> (B,T,D)."""
        return ctx.ops.rmsnorm.forward(x, self.params[NORM], ctx.eps)

    def norm_backward(self, dh: Array, cache: Cache, ctx: Context) -> tuple[Array, dict[str, Array]]:
        """-> dx (B,T,D), {name: gradient}."""
        dx, dweight = ctx.ops.rmsnorm.backward(dh, cache)
        return dx, {NORM: dweight}

    def collect_grads(self, grads: dict[str, Array]) -> dict[str, Array]:
        """What every op said of its weight, by the weight's name -> {name: gradient} of all that is trainable."""
        if self.config.tie_word_embeddings:  # one matrix used twice: the sum of both gradients
            grads[EMBED] += grads.pop(LM_HEAD)
        return grads

    def layer_params(self, index: int) -> Params:
        """A layer's parameters by part, "self_attn.q_proj.weight" and so on."""
        return {part: self.params[layer_name(index, part)] for part in layer_shapes(self.config)}

    @property
    def head(self) -> Array:  # (V,D)
        """The matrix that makes logits; in a tied model the embedding's."""
        return self.params[EMBED if self.config.tie_word_embeddings else LM_HEAD]

    @property
    def trainable(self) -> dict[str, Array]:
        """What has a gradient, and what an optimizer changes: all parameters, or those of an adapter (finetune.py)."""
        return self.params

    def with_ops(self, **pairs: OpPair) -> Self:
        """The same model on the same weights, with other ops in its table."""
        model = copy.copy(self)
        model.ops = replace(self.ops, **pairs)
        return model

    @property
    def dtype(self) -> np.dtype:
        return self.params[EMBED].dtype

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.config.shape_text}; {self.dtype})"

    # -- weights in and out ---------------------------------------------------------------------------------------

    @classmethod
    def init(cls, config: LlamaConfig, seed: int = 0, dtype: np.typing.DTypeLike = np.float32, **options) -> "Llama":
        """A model with fresh weights: the same numbers that every volume draws for this seed. options: see __init__."""
        return cls(config, init_params(config, seed, check_dtype(dtype)), **options)

    @classmethod
    def from_pretrained(
        cls, path: str | Path, dtype: np.typing.DTypeLike = np.float32, *, adapter: str | Path | None = None, **options
    ) -> "Llama":
        """Read a Hugging Face folder, a .gguf, a .pth, or a hub name, converting to `dtype` tensor by tensor.

        adapter: a folder in PEFT's format, which is merged into the weights.
        Raises UserError, ConfigError, FormatError: the checkpoint is not a LLaMA, or is damaged.
        """
        from nano_llama.formats import open_model
        from nano_llama.formats.merged import open_merged

        dtype = check_dtype(dtype)
        with open_model(path) if adapter is None else open_merged(path, adapter, dtype) as weights:
            config = weights.config
            # copies: arrays mapped from a file are read-only, and training changes its parameters in place
            params = {name: np.array(weights[name], dtype, order="C") for name in parameter_shapes(config)}
        return cls(config, params, **options)

    def save(self, path: str | Path, format: str = "hf", *, tokenizer: Any = None, dtype: str | None = None) -> None:
        """Write "hf" (a folder of config.json and safetensors), "gguf" (with the tokenizer inside) or "pth".

        dtype: the numbers' type in the file, as the format's own save function takes it; None: its default.
        Raises UserError for another format, or a GGUF without a tokenizer.
        """
        from nano_llama import formats

        given: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        if format == "hf":
            formats.save_hf(path, self.config, self.params, tokenizer=tokenizer, **given)
        elif format == "gguf":
            formats.save_gguf(path, self.config, self.params, tokenizer, **given)
        elif format == "pth":
            formats.save_pth(path, self.params, config=self.config, **given)
        else:
            raise UserError(f"save: format = {format!r} is unknown.", hint='Choose "hf", "gguf" or "pth".')

    # -- checks ---------------------------------------------------------------------------------------------------

    def _context(self, T: int, mask: Array | None, past: Past | None = None) -> Context:
        start = past.length if past is not None else 0
        cos, sin = rope_tables(self.config, np.arange(start, start + T), self.dtype)  # (T,K/2)
        mask = causal_mask(T, start) if mask is None else mask
        config = self.config
        if config.sliding_window is not None:
            mask = mask & window_mask(config.sliding_window, T, start)
        return Context(
            ops=self.ops, head_dim=config.head_dim, eps=config.rms_norm_eps, cos=cos, sin=sin, mask=mask, past=past
        )

    def _check_batch(self, tokens: Array, targets: Array) -> tuple[Array, Array, Callable[[Array], float]]:
        """Checked tokens and targets, and which part of all counted targets some of them are."""
        tokens, targets = check_ids(tokens, self.config.vocab_size), np.asarray(targets)
        if targets.shape != tokens.shape or not np.issubdtype(targets.dtype, np.integer):
            raise UserError(
                f"targets: expected integers of the tokens' shape {tokens.shape}, got {targets.dtype} {targets.shape}."
            )
        count = max(1, int(np.count_nonzero(targets != IGNORE_INDEX)))
        return tokens, targets, lambda part: int(np.count_nonzero(part != IGNORE_INDEX)) / count


def check_dtype(dtype: np.typing.DTypeLike) -> np.dtype:
    """float32 or float64; anything else is refused (UserError): NumPy has no matrix product in half precision."""
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise UserError(
            f"dtype = {np.dtype(dtype).name} is not one that Volume 1 computes in.", hint="float32, float64."
        )
    return np.dtype(dtype)


def check_ids(tokens: Array, vocab_size: int) -> Array:
    """(B,T) of token ids as an array. Raises UserError for what is not."""
    tokens = np.asarray(tokens)
    if tokens.ndim != 2 or not np.issubdtype(tokens.dtype, np.integer):
        raise UserError(f"tokens: expected (B,T) of integers, got {tokens.dtype} of shape {tokens.shape}.")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        wrong = tokens.min() if tokens.min() < 0 else tokens.max()
        raise UserError(
            f"tokens: {wrong} is not a token of this vocabulary of {vocab_size}.",
            hint=f"Ids are 0 to {vocab_size - 1}.",
        )
    return tokens
