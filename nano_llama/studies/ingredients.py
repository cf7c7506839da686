"""Study: what 1/sqrt(K), the residuals, the norms and the scale of the fresh weights each do. Take one out and see.

Not here: where the norm stands (norm_placement.py). Tests: tests/studies/test_ingredients.py.

The base is a LLaMA whose matrices start at standard deviation 1/sqrt(D), so that a matrix product keeps the size of a
normed input and every score q.k is a sum of K terms of size one.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.init import init_params
from nano_llama.core.names import INPUT_NORM, POST_NORM, layer_name
from nano_llama.studies import Finding
from nano_llama.studies.drawing import BLUE, GREEN, GREY, ORANGE, RED, panels, save
from nano_llama.studies.small_runs import PROBED, characters, plain_attention, probe, smooth, train
from nano_llama.vol1_numpy.layer import (
    Context,
    attention_block_backward,
    attention_block_forward,
    mlp_backward,
    mlp_forward,
)
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.tables import Ops, Pair

PURPLE = "#762a83"


class WithoutResiduals(Llama):
    """Each sublayer replaces the stream instead of adding to it: x <- attention(norm(x)), x <- mlp(norm(x))."""

    def layer_forward(self, x: Array, index: int, ctx: Context) -> tuple[Array, Cache]:
        p = self.layer_params(index)
        h, norm1 = ctx.ops.rmsnorm.forward(x, p[INPUT_NORM], ctx.eps)  # (B,T,D)
        x, attn = attention_block_forward(h, p, ctx, index)
        h, norm2 = ctx.ops.rmsnorm.forward(x, p[POST_NORM], ctx.eps)
        x, mlp = mlp_forward(h, p, ctx)
        return x, (norm1, attn, norm2, mlp)

    def layer_backward(self, dx: Array, cache: Cache, index: int, ctx: Context) -> tuple[Array, dict[str, Array]]:
        grads: dict[str, Array] = {}
        norm1, attn, norm2, mlp = cache
        dx, grads[POST_NORM] = ctx.ops.rmsnorm.backward(mlp_backward(dx, mlp, ctx, grads), norm2)
        dx, grads[INPUT_NORM] = ctx.ops.rmsnorm.backward(attention_block_backward(dx, attn, ctx, grads), norm1)
        return dx, {layer_name(index, part): grad for part, grad in grads.items()}


def gain_forward(x: Array, weight: Array, eps: float) -> tuple[Array, Cache]:
    """What is left of a norm without its division: y = x * weight.    x: (B,T,D)   weight: (D,)"""
    return x * weight, (x, weight)


def gain_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """dx = dy * weight, dweight = sum over rows of dy * x"""
    x, weight = cache
    return dy * weight, np.sum(dy * x, axis=(0, 1))


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A base model with one thing changed."""

    color: str
    ops: Ops = PROBED
    model: type[Llama] = Llama
    scale: float = 1.0  # of the fresh matrices, beside 1/sqrt(D)


def variants(head_dim: int) -> dict[str, Variant]:
    return {
        "complete": Variant(color="black"),
        "without 1/sqrt(K)": Variant(color=ORANGE, ops=replace(PROBED, attention=plain_attention(math.sqrt(head_dim)))),
        "without residuals": Variant(color=RED, model=WithoutResiduals),
        "without norms": Variant(color=BLUE, ops=replace(PROBED, rmsnorm=Pair(gain_forward, gain_backward))),
        "weights 4 x larger": Variant(color=PURPLE, scale=4.0),
        "weights 10 x smaller": Variant(color=GREEN, scale=0.1),
    }


def make(variant: Variant, config: LlamaConfig, seed: int) -> Llama:
    """A fresh model of this variant: every variant starts from the same draws."""
    config = config.replace(initializer_range=variant.scale / math.sqrt(config.hidden_size))
    return variant.model(config, init_params(config, seed), ops=variant.ops)


def run(picture: Path, seed: int = 0, quick: bool = False) -> Finding:
    ids, V = characters(60_000 if quick else 400_000)
    D, L, H, F, T, B, steps = (32, 3, 2, 64, 32, 2, 6) if quick else (128, 8, 2, 344, 64, 8, 240)
    config = LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H,
        max_position_embeddings=T,
    )  # fmt: skip
    tokens = ids[: B * (T + 1)].reshape(B, T + 1)
    probes, losses = {}, {}
    table = variants(config.head_dim)
    for name, variant in table.items():
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            probes[name] = probe(make(variant, config, seed), tokens[:, :-1], tokens[:, 1:])
        losses[name] = train(
            make(variant, config, seed), ids, steps=steps, batch=B, context=T, lr=2e-3, warmup=steps // 10, clip=1.0,
            seed=seed,
        )  # fmt: skip

    draw(picture, table, probes, losses)
    last = {
        name: float(np.mean(values[-20:])) if math.isfinite(values[-1]) else None for name, values in losses.items()
    }
    figures: dict[str, Any] = {
        "final_loss": last,
        "entropy": {name: p.entropy for name, p in probes.items()},
        "stream": {name: p.stream for name, p in probes.items()},
        "gradients": {name: p.gradients for name, p in probes.items()},
        "losses": {name: [x for x in values if math.isfinite(x)] for name, values in losses.items()},
    }
    return Finding("ingredients", sentences(probes, last, steps), picture, figures)


def sentences(probes: dict[str, Any], last: dict[str, float | None], steps: int) -> str:
    """The finding, from the figures."""

    def entropy(name: str) -> float:
        return float(np.mean(probes[name].entropy))

    def spread(name: str) -> float:
        """The first layer's gradient over the last one's."""
        gradients = probes[name].gradients
        return gradients[0] / gradients[-1]

    def loss(name: str) -> str:
        value = last[name]
        return "it diverges" if value is None else f"{value:.2f} nats after {steps} steps"

    complete, base = probes["complete"], "complete"
    grown = {name: probes[name].stream[-1] / probes[name].stream[0] for name in probes}
    return (
        f"Complete: {loss(base)}. "
        f"Without 1/sqrt(K) the scores are sqrt(K) times larger and attention starts nearly decided (entropy "
        f"{entropy('without 1/sqrt(K)'):.2f} of uniform against {entropy(base):.2f}): {loss('without 1/sqrt(K)')}. "
        f"Without residuals the first layer's gradient is {spread('without residuals'):.1g} times the last one's "
        f"(complete: {spread(base):.1g}), and nothing carries the tokens past a layer: {loss('without residuals')}. "
        f"Without norms each layer multiplies what it is given; at this scale of weights the stream ends at "
        f"{grown['without norms']:.1g} times its start (complete: {grown[base]:.1g}): {loss('without norms')}. "
        f"Weights 4 x larger open at {probes['weights 4 x larger'].loss:.0f} nats instead of {complete.loss:.1f}: "
        f"{loss('weights 4 x larger')}; 10 x smaller the layers begin as almost nothing: "
        f"{loss('weights 10 x smaller')}."
    )


def draw(picture: Path, table: dict[str, Variant], probes: dict[str, Any], losses: dict[str, list[float]]) -> None:
    figure, (stream, gradients, entropy, loss) = panels(
        [
            "fresh model: size of the residual stream",
            "fresh model: gradient norm of each layer",
            "fresh model: entropy of attention (1 = uniform)",
            "training loss, nats a character",
        ],
        columns=2,
    )
    for name, variant in table.items():
        p, style = probes[name], {"color": variant.color, "label": name, "markersize": 3}
        stream.semilogy(p.stream, "o-", **style)
        gradients.semilogy(range(1, len(p.gradients) + 1), p.gradients, "o-", **style)
        entropy.plot(range(1, len(p.entropy) + 1), p.entropy, "o-", **style)
        loss.plot(smooth([min(x, 12.0) for x in losses[name]]), color=variant.color, label=name, linewidth=1.2)
    for ax in (stream, gradients, entropy):
        ax.set_xlabel("layer", fontsize=8)
    loss.set_xlabel("step", fontsize=8)
    top = max(min(values[0], 6.0) for values in losses.values())
    loss.set_ylim(0, top * 1.05)
    stream.legend(fontsize=7)
    entropy.axhline(1.0, color=GREY, linewidth=0.8)
    save(figure, picture)
