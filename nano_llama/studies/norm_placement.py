"""Study: the norm before each sublayer (Pre-LN, LLaMA's) or after each sum (Post-LN, the first transformer's).

What happens without any norm: ingredients.py. Tests: tests/studies/test_norm_placement.py.

    Pre-LN     x <- x + f(norm(x))       the stream itself is never normalized: plain sums from end to start
    Post-LN    x <- norm(x + f(x))       every layer normalizes the stream, and scales the gradient on its way back

Xiong et al. 2020 (arXiv 2002.04745) find for fresh weights that the gradient of the last layer's MLP shrinks like
1/sqrt(L) in Pre-LN and does not shrink in Post-LN (their theorem 1), so that Post-LN needs warmup. Fresh matrices have
standard deviation 1/sqrt(inputs) here, without LLaMA's factor 1/sqrt(2L) on what writes into the stream: as there.
"""

import math
from pathlib import Path

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.figures import BLUE, GREY, ORANGE, count_ticks, legend_above, log_ticks, panels, save
from nano_llama.core.init import init_params
from nano_llama.core.names import DOWN_PROJ, GATE_PROJ, LM_HEAD, O_PROJ, UP_PROJ, is_hidden_matrix, layer_name
from nano_llama.studies.finding import Finding, points
from nano_llama.studies.small_runs import characters, smooth, train
from nano_llama.studies.study_config import StudyConfig
from nano_llama.studies.study_model import StudyLlama
from nano_llama.vol1_numpy import Llama
from nano_llama.vol1_numpy.ops.array import Array

MLP = (GATE_PROJ, UP_PROJ, DOWN_PROJ)
RATE = 1e-3


PLACEMENTS = {"Pre-LN": StudyConfig(norm_position="pre"), "Post-LN": StudyConfig(norm_position="post")}
COLORS = {"Pre-LN": BLUE, "Post-LN": ORANGE}


def make(placement: str, config: LlamaConfig, seed: int) -> Llama:
    """A fresh model: matrices (out, in) ~ N(0, 1/in), the embedding ~ N(0, 1): the stream begins at size one."""
    params = init_params(config.replace(initializer_range=1.0), seed)
    residual = math.sqrt(2 * config.num_hidden_layers)  # init_params divides what writes into the stream by this
    for name, param in params.items():
        if is_hidden_matrix(name):
            param *= (residual if name.endswith((O_PROJ, DOWN_PROJ)) else 1.0) / math.sqrt(param.shape[1])
        elif name == LM_HEAD:
            param /= math.sqrt(param.shape[1])
    return StudyLlama(config, params, study=PLACEMENTS[placement])


def layer_gradients(model: Llama, tokens: Array, targets: Array) -> list[float]:
    """Norm of the gradient of each layer's MLP, one number per layer."""
    _, grads = model.loss_and_grads(tokens, targets)
    return [
        math.sqrt(sum(float(np.sum(grads[layer_name(i, part)] ** 2)) for part in MLP))
        for i in range(model.config.num_hidden_layers)
    ]


def run(picture: Path, seed: int = 0, quick: bool = False) -> Finding:
    ids, V = characters(60_000 if quick else 400_000)
    D, F, H, T, B = (16, 32, 2, 16, 2) if quick else (64, 172, 4, 64, 8)
    depths, L, steps = ((2, 4), 4, 6) if quick else ((2, 4, 8, 16, 32), 12, 300)
    w = steps // 3  # steps of warmup
    base = LlamaConfig(
        vocab_size=V, hidden_size=D, intermediate_size=F, num_hidden_layers=L, num_attention_heads=H,
        max_position_embeddings=T,
    )  # fmt: skip
    tokens = ids[: B * (T + 1)].reshape(B, T + 1)
    batch = tokens[:, :-1], tokens[:, 1:]

    at_depth = {
        name: {n: layer_gradients(make(name, base.replace(num_hidden_layers=n), seed), *batch) for n in (*depths, L)}
        for name in PLACEMENTS
    }
    last = {name: [at_depth[name][n][-1] for n in depths] for name in PLACEMENTS}
    slope = {name: float(np.polyfit(np.log(depths), np.log(last[name]), 1)[0]) for name in PLACEMENTS}
    runs = {
        (name, warmup): train(
            make(name, base, seed), ids, steps=steps, batch=B, context=T, lr=RATE, warmup=warmup, clip=0.0, seed=seed
        )
        for name in PLACEMENTS
        for warmup in (0, w)
    }
    caption = f"LLaMA of width {D}, {H} heads, characters; B = {B}, T = {T}, AdamW at {RATE:g}, seed {seed}"
    draw(picture, at_depth, last, depths, L, runs, caption)

    ended = {key: float(np.mean(losses[-20:])) for key, losses in runs.items()}

    def loss(name: str, warmup: int) -> str:
        value = ended[name, warmup]
        return f"{value:.2f}" if math.isfinite(value) else "NaN"

    text = points(
        f"Without warmup Pre-LN ends at {loss('Pre-LN', 0)} nats per character and Post-LN at {loss('Post-LN', 0)}; "
        f"with {w} of {steps} steps of it, at {loss('Pre-LN', w)} and {loss('Post-LN', w)}.",
        f"In a fresh model of {L} layers the last layer's gradient is "
        f"{at_depth['Post-LN'][L][-1] / at_depth['Pre-LN'][L][-1]:.1f} times larger in Post-LN, the first layer's "
        f"{at_depth['Post-LN'][L][0] / at_depth['Pre-LN'][L][0]:.1f} times.",
        f"With L layers the last one's falls as L^{slope['Pre-LN']:.2f} in Pre-LN (theory: -0.5) and as "
        f"L^{slope['Post-LN']:.2f} in Post-LN (theory: 0).",
    )
    figures = {
        "layers": L,
        "depths": list(depths),
        "last_layer_gradient": last,
        "slope": slope,
        "layer_gradients": {name: at_depth[name][L] for name in PLACEMENTS},
        "final_loss": {
            f"{name}, warmup {warmup}": value if math.isfinite(value) else None
            for (name, warmup), value in ended.items()
        },
        "losses": {f"{n}, warmup {w}": [x for x in values if math.isfinite(x)] for (n, w), values in runs.items()},
    }
    return Finding("norm-placement", text, picture, figures)


def draw(picture: Path, at_depth: dict, last: dict, depths: tuple[int, ...], L: int, runs: dict, caption: str) -> None:
    figure, (layers, depth, loss) = panels(
        [
            f"fresh model of {L} layers: MLP gradient of each",
            "fresh model: MLP gradient of the last layer",
            f"training loss, {L} layers",
        ]
    )
    for name, color in COLORS.items():
        layers.semilogy(range(1, L + 1), at_depth[name][L], "o-", color=color)
        depth.loglog(depths, last[name], "o-", color=color)
    start = last["Pre-LN"][0]
    falling = [start * math.sqrt(depths[0] / n) for n in depths]
    (theory,) = depth.loglog(depths, falling, ":", color=GREY, label="1/sqrt(L)")
    for (name, warmup), losses in runs.items():
        label, style = f"{name}, {f'{warmup} steps of' if warmup else 'no'} warmup", "-" if warmup else "--"
        shown = smooth([min(x, 8.0) for x in losses])
        loss.plot(range(1, len(shown) + 1), shown, style, color=COLORS[name], label=label, linewidth=1.2)
    layers.set_xlabel("layer")
    depth.set_xlabel("number of layers L")
    loss.set_xlabel("step")
    for ax in (layers, depth):
        ax.set_ylabel("gradient norm")
    loss.set_ylabel("nats per character")
    depth.set_xticks(depths, [str(n) for n in depths])
    depth.set_xticks([], minor=True)
    log_ticks(layers.yaxis, depth.yaxis)
    count_ticks(layers, loss)
    depth.legend(handles=[theory])
    legend_above(figure, loss, columns=4)
    save(figure, picture, caption)
