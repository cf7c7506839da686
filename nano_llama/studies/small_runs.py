"""What the training studies share: a text that is on every disk, a probe of a fresh model, and a short training run.

Tests: tests/studies/test_small_runs.py.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from nano_llama.data.batches import ArrayTokens, Batches
from nano_llama.data.sources import open_source
from nano_llama.vol1_numpy.layer import Context
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.attention import attention_weights
from nano_llama.vol1_numpy.ops.registry import PLAIN, OpPair, Ops
from nano_llama.vol1_numpy.optim import AdamW, clip_by_global_norm


def characters(limit: int = 400_000) -> tuple[np.ndarray, int]:
    """The first `limit` characters of the Python standard library's source, as ids. -> (N,) int64, V"""
    texts, length = [], 0
    for document in islice(open_source("stdlib").documents("train"), 1000):
        texts.append(document.text)
        length += len(document.text)
        if length >= limit:
            break
    codes = np.frombuffer("".join(texts)[:limit].encode("utf-32-le"), np.uint32)
    alphabet, ids = np.unique(codes, return_inverse=True)
    return ids.astype(np.int64), len(alphabet)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Measurements from one forward and backward pass."""

    stream: list[float]  # root mean square of the residual stream: after the embedding, after each layer
    gradients: list[float]  # norm of each layer's whole gradient
    entropy: list[float]  # of each layer's attention: mean over queries of H / log(number of keys), 1 = uniform
    loss: float


def probe(build: Callable[[Ops], Llama], tokens: Array, targets: Array) -> Probe:
    """Measure the model that `build` makes with a table of ops, on one batch (B,T)."""
    stream: list[float] = []
    entropy: list[float] = []

    def probed_attention(q: Array, k: Array, v: Array, mask: Array | None = None) -> tuple[Array, Cache]:
        out, cache = PLAIN.attention.forward(q, k, v, mask)
        weights = attention_weights(cache)  # (B,H,T,T)
        nats = -np.sum(weights * np.log(np.maximum(weights, 1e-30)), axis=-1)  # (B,H,T)
        most = np.log(np.arange(2, weights.shape[2] + 1))  # the first query has one key and no choice
        entropy.append(float(np.mean(nats[..., 1:] / most)))
        return out, cache

    model = build(replace(PLAIN, attention=OpPair(probed_attention, PLAIN.attention.backward)))
    model.threads = 1  # one shard, so that layers run in order
    layer_forward = model.layer_forward

    def probed_layer(x: Array, index: int, ctx: Context) -> tuple[Array, Cache]:
        if not stream:
            stream.append(rms(x))
        y, cache = layer_forward(x, index, ctx)
        stream.append(rms(y))
        return y, cache

    vars(model)["layer_forward"] = probed_layer
    loss, grads = model.loss_and_grads(tokens, targets)
    gradients = [
        math.sqrt(sum(float(np.sum(g * g)) for name, g in grads.items() if name.startswith(f"model.layers.{i}.")))
        for i in range(model.config.num_hidden_layers)
    ]
    return Probe(stream=stream, gradients=gradients, entropy=entropy, loss=loss)


def train(
    model: Llama,
    ids: np.ndarray,
    *,
    steps: int,
    batch: int,
    context: int,
    lr: float,
    warmup: int,
    clip: float,
    seed: int,
) -> list[float]:
    """`steps` updates by AdamW at a constant rate after `warmup` steps; clip 0: none. -> the training losses

    It ends early, with infinity as the last loss, where the loss or the gradient is not finite.
    """
    batches = Batches(ArrayTokens(ids), batch, context, seed)
    optimizer = AdamW(model.params, lr, betas=(0.9, 0.99), weight_decay=0.0)
    losses: list[float] = []
    for step in range(1, steps + 1):
        with np.errstate(over="ignore", invalid="ignore"):
            loss, grads = model.loss_and_grads(*next(batches))
            norm = clip_by_global_norm(grads, clip or math.inf)
        if not math.isfinite(loss + norm):
            return [*losses, math.inf]
        losses.append(loss)
        optimizer.step(model.params, grads, lr * min(1.0, step / max(warmup, 1)))
    return losses


def smooth(losses: Sequence[float], width: int = 10) -> list[float]:
    """The mean over the last `width` values at each place (fewer at the beginning)."""
    sums = np.cumsum([0.0, *losses])
    ends = np.arange(1, len(losses) + 1)
    starts = np.maximum(ends - width, 0)
    with np.errstate(invalid="ignore"):
        return ((sums[ends] - sums[starts]) / (ends - starts)).tolist()


def rms(x: Array) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(x, dtype=np.float64))))
