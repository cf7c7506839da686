"""Study: what 1/sqrt(K), the residuals, the norms and the scale of the fresh weights each do. Take one out and see.

Where the norm belongs is a study of its own, norm_placement.py. Tests: tests/studies/test_ingredients.py.

The base is a LLaMA whose matrices start at standard deviation 1/sqrt(D), so that a matrix product keeps the size of a
normed input and every score q.k is a sum of K terms of size one.
"""

import math
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    count_ticks,
    ink,
    legend_above,
    log_ticks,
    panels,
    save,
)
from nano_llama.core.init import init_params
from nano_llama.studies.finding import Finding, points
from nano_llama.studies.small_runs import Probe, characters, probe, smooth, train
from nano_llama.studies.study_config import StudyConfig
from nano_llama.studies.study_model import StudyLlama
from nano_llama.vol1_numpy.ops.registry import FAST, Ops


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A LLaMA with one thing changed."""

    color: str | None = None  # None: that of text
    around: bool = False  # drawn as large empty squares, which are seen around another's points in the same place
    study: StudyConfig | None = None
    scale: float = 1.0  # of the fresh matrices, beside 1/sqrt(D)

    def make(self, config: LlamaConfig, seed: int, ops: Ops = FAST) -> StudyLlama:
        """A fresh model: every variant starts from the same draws."""
        config = config.replace(initializer_range=self.scale / math.sqrt(config.hidden_size))
        return StudyLlama(config, init_params(config, seed), study=self.study, ops=ops)


VARIANTS = {
    "complete": Variant(),
    "without 1/sqrt(K)": Variant(color=ORANGE, study=StudyConfig(attention_scale=False)),
    "without residuals": Variant(color=RED, study=StudyConfig(residual=False)),
    "without norms": Variant(color=BLUE, around=True, study=StudyConfig(norm="none")),
    "weights 4 x larger": Variant(color=PURPLE, scale=4.0),
    "weights 10 x smaller": Variant(color=GREEN, scale=0.1),
}


def run(picture: Path, seed: int = 0, quick: bool = False) -> Finding:
    ids, V = characters(60_000 if quick else 400_000)
    D, L, H, F, T, B, steps = (32, 3, 2, 64, 32, 2, 6) if quick else (128, 8, 2, 344, 64, 8, 240)
    config = LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H,
        max_position_embeddings=T,
    )  # fmt: skip
    tokens = ids[: B * (T + 1)].reshape(B, T + 1)
    probes, losses = {}, {}
    for name, variant in VARIANTS.items():
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            probes[name] = probe(partial(variant.make, config, seed), tokens[:, :-1], tokens[:, 1:])
        losses[name] = train(
            variant.make(config, seed), ids, steps=steps, batch=B, context=T, lr=2e-3, warmup=steps // 10, clip=1.0,
            seed=seed,
        )  # fmt: skip

    caption = f"LLaMA of {L} layers, width {D}, {H} heads, characters; B = {B}, T = {T}, AdamW at 0.002, seed {seed}"
    draw(picture, probes, losses, caption)
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


def sentences(probes: dict[str, Probe], last: dict[str, float | None], steps: int) -> str:
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
    return points(
        f"Complete: {loss(base)}.",
        f"Without 1/sqrt(K) the scores are sqrt(K) times larger and attention starts nearly decided (entropy "
        f"{entropy('without 1/sqrt(K)'):.2f} of uniform against {entropy(base):.2f}): {loss('without 1/sqrt(K)')}.",
        f"Without residuals the first layer's gradient is {spread('without residuals'):.0f} times the last one's "
        f"(complete: {spread(base):.0f}), and nothing carries the tokens past a layer: {loss('without residuals')}.",
        f"Without norms nothing brings the small embedding to size one, so attention starts undecided (entropy "
        f"{entropy('without norms'):.2f}) and the stream ends at {grown['without norms']:.1f} times its start "
        f"(complete: {grown[base]:.1f}); at this depth and rate that costs little: {loss('without norms')}.",
        f"Weights 4 x larger open at {probes['weights 4 x larger'].loss:.0f} nats instead of {complete.loss:.1f}: "
        f"{loss('weights 4 x larger')}; 10 x smaller the layers begin as almost nothing: "
        f"{loss('weights 10 x smaller')}.",
    )


def draw(picture: Path, probes: dict[str, Probe], losses: dict[str, list[float]], caption: str) -> None:
    figure, (stream, gradients, entropy, loss) = panels(
        [
            "fresh model: size of the residual stream",
            "fresh model: gradient norm of each layer",
            "fresh model: entropy of attention (1 = uniform)",
            "training loss",
        ],
        columns=2,
    )
    for name, variant in VARIANTS.items():
        color = variant.color or ink()
        p = probes[name]
        style: dict[str, Any] = {"color": color, "label": name, "marker": "o"}
        if variant.around:
            style |= {"marker": "s", "markersize": 9, "markerfacecolor": "none"}
        stream.semilogy(p.stream, **style)
        gradients.semilogy(range(1, len(p.gradients) + 1), p.gradients, **style)
        entropy.plot(range(1, len(p.entropy) + 1), p.entropy, **style)
        shown = smooth([min(x, 12.0) for x in losses[name]])
        loss.plot(range(1, len(shown) + 1), shown, color=color, label=name, linewidth=1.2)
    for ax, y in ((stream, "root mean square"), (gradients, "gradient norm"), (entropy, "entropy / that of uniform")):
        ax.set_xlabel("layer")
        ax.set_ylabel(y)
    loss.set_ylabel("nats per character")
    log_ticks(stream.yaxis, gradients.yaxis)
    count_ticks(stream, gradients, entropy, loss)
    loss.set_xlabel("step")
    top = max(min(values[0], 6.0) for values in losses.values())
    bottom = min(min(smooth(values)) for values in losses.values())
    loss.set_ylim(0.9 * bottom, 1.05 * top)
    above = [name for name, values in losses.items() if min(min(x, 12.0) for x in smooth(values)) > 1.05 * top]
    if above:
        loss.text(0.5, 0.97, f"above: {', '.join(above)}", transform=loss.transAxes, ha="center", va="top")
    legend_above(figure, stream)
    entropy.axhline(1.0, color=GREY, linewidth=0.8)
    save(figure, picture, caption)
