"""Study: softmax three ways. Naive overflows, two passes do not, and one pass (online) needs no T x T matrix.

The ops themselves are in vol1_numpy/ops. Tests: tests/studies/test_online_softmax.py.
"""

import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits

from nano_llama.core.figures import BLUE, GREEN, ORANGE, log_ticks, panels, save
from nano_llama.studies.finding import Finding, points
from nano_llama.vol1_numpy import ops

BLOCK = 64
HEADS, HEAD_DIM = 2, 32  # of the attention that is measured
MIB = 2**20


def naive_softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum exp(x), as the formula stands.    (T,) -> (T,). In float32 exp overflows for x > 88.7."""
    with np.errstate(over="ignore", invalid="ignore"):
        e = np.exp(x)
        return e / e.sum()


def two_pass_softmax(x: np.ndarray) -> np.ndarray:
    """The same with the maximum taken out first: exp(x - m) / sum exp(x - m), and no exponent is above 0."""
    e = np.exp(x - x.max())
    return e / e.sum()


def online_softmax(x: np.ndarray, block: int = BLOCK) -> np.ndarray:
    """Maximum m and sum s in one pass over blocks (Milakov & Gimelshein 2018, algorithm 3).

    When a block raises the maximum from m to m', every term so far was too large by exp(m' - m), and so is their sum:
    s' = s exp(m - m') + sum over the block of exp(x - m').
    """
    m, s = -np.inf, x.dtype.type(0)
    for start in range(0, len(x), block):
        part = x[start : start + block]
        new = max(m, part.max())
        s = s * np.exp(m - new) + np.exp(part - new).sum()
        m = new
    return np.exp(x - m) / s


WAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "naive": naive_softmax,
    "two passes": two_pass_softmax,
    "online": online_softmax,
}
COLORS = {"naive": ORANGE, "two passes": BLUE, "online": GREEN}


def softmax_error(way: str, T: int, scale: float, seed: int, draws: int = 8) -> float:
    """The worst relative error against float64 over `draws` vectors of T float32 scores ~ scale N(0, 1); NaN: inf."""
    worst = 0.0
    for draw in range(draws):
        x = (scale * np.random.default_rng((seed, draw)).standard_normal(T)).astype(np.float32)
        exact = two_pass_softmax(x.astype(np.float64))
        found = WAYS[way](x).astype(np.float64)
        error = float(np.abs(found - exact).max() / exact.max())
        worst = max(worst, error) if np.isfinite(error) else np.inf
    return worst


def attention_cost(kind: str, T: int, seed: int) -> tuple[float, float, float]:
    """Forward and backward of causal attention, float32: -> peak MiB beyond inputs, seconds, error.

    kind: "attention" keeps the T x T weights, "flash" never forms them. The error is the relative error of the output
    and all gradients against `attention` in float64 (NaN above 1024 tokens, where that takes too much memory).
    """
    rng = np.random.default_rng((seed, T))
    q, k, v, dy = (rng.standard_normal((1, HEADS, T, HEAD_DIM), np.float32) for _ in range(4))  # (B,H,T,K)
    causal = np.tril(np.ones((T, T), bool))

    def both(q, k, v, dy):
        if kind == "attention":
            y, cache = ops.attention_forward(q, k, v, causal)
            return y, *ops.attention_backward(dy, cache)
        y, cache = ops.flash_attention_forward(q, k, v, causal, BLOCK)
        return y, *ops.flash_attention_backward(dy, cache)

    seconds = float("inf")
    for _ in range(2):  # the faster of two: the first also touches fresh memory
        began = time.perf_counter()
        found = both(q, k, v, dy)
        seconds = min(seconds, time.perf_counter() - began)
    error = float("nan")
    if T <= 1024:
        q64, k64, v64, dy64 = (a.astype(np.float64) for a in (q, k, v, dy))
        y, cache = ops.attention_forward(q64, k64, v64, causal)
        exact = y, *ops.attention_backward(dy64, cache)
        error = max(float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(found, exact, strict=True))
    tracemalloc.start()  # NumPy reports its arrays to it
    both(q, k, v, dy)
    peak = tracemalloc.get_traced_memory()[1] / MIB
    tracemalloc.stop()
    return peak, seconds, error


def run(picture: Path, seed: int = 0, quick: bool = False) -> Finding:
    lengths = [2**n for n in range(6, 13 if quick else 19)]
    scales = [1.0, 4.0, 16.0, 32.0, 64.0]
    over_length = {way: [softmax_error(way, T, 1.0, seed) for T in lengths] for way in WAYS}
    over_scale = {way: [softmax_error(way, 1024, scale, seed) for scale in scales] for way in WAYS}
    contexts = [2**n for n in range(6, 10 if quick else 13)]
    with threadpool_limits(1):  # so that a busy machine disturbs the times less
        costs = {kind: [attention_cost(kind, T, seed) for T in contexts] for kind in ("attention", "flash")}

    figure, (a, b, c, d) = panels(
        [
            "error, scores ~ N(0, 1)",
            "error at T = 1,024, scores ~ s N(0, 1)",
            "attention: peak memory",
            "attention: time",
        ],
        2,
    )
    for way in WAYS:
        a.loglog(lengths, over_length[way], "o-", color=COLORS[way], label=way)
        shown = [e if np.isfinite(e) else np.nan for e in over_scale[way]]
        b.loglog(scales, shown, "o-", color=COLORS[way], label=way)
    lost = next((s for s, e in zip(scales, over_scale["naive"], strict=True) if not np.isfinite(e)), None)
    if lost is not None:
        b.axvspan(lost, scales[-1], color=ORANGE, alpha=0.15)
        middle = (lost * scales[-1]) ** 0.5
        style = {"ha": "center", "color": ORANGE}
        b.text(middle, 0.88, "naive:\ninf/inf", transform=b.get_xaxis_transform(), **style)
    for kind, color in (("attention", BLUE), ("flash", GREEN)):
        label = "T x T weights" if kind == "attention" else f"online, blocks of {BLOCK}"
        c.loglog(contexts, [cost[0] for cost in costs[kind]], "o-", color=color, label=label)
        d.loglog(contexts, [cost[1] for cost in costs[kind]], "o-", color=color, label=label)
    for ax, x, y in (
        (a, "length T, tokens", "relative error"),
        (b, "spread of the scores s", "relative error"),
        (c, "length T, tokens", "MiB"),
        (d, "length T, tokens", "seconds"),
    ):
        ax.set_xlabel(x)
        ax.set_ylabel(y)
        ax.legend()
        log_ticks(ax.yaxis)
        ticks = {a: lengths[::2], b: scales}.get(ax, contexts)
        ax.set_xticks(ticks, [f"{tick:,g}" for tick in ticks])
        ax.set_xticks([], minor=True)
    shape = f"attention: B = 1, {HEADS} heads of {HEAD_DIM}, causal, forward and backward"
    save(figure, picture, f"float32, one thread, errors against float64; {shape}; seed {seed}")

    growth = {
        kind: float(np.log2(costs[kind][-1][0] / costs[kind][-2][0])) for kind in costs
    }  # memory ~ T^growth at the long end
    ratio = costs["attention"][-1][0] / costs["flash"][-1][0]
    errors = {kind: float(np.nanmax([cost[2] for cost in costs[kind]])) for kind in costs}
    last = {way: over_length[way][-1] for way in WAYS}
    text = points(
        f"Online, attention's memory grows like T^{growth['flash']:.1f} instead of T^{growth['attention']:.1f}: "
        f"{ratio:.0f} times less at T = {contexts[-1]:,}.",
        f"Output and gradients differ from float64 by {errors['flash']:.0e} (with the weights kept: "
        f"{errors['attention']:.0e}).",
        f"On small scores all three forms are exact to float32's last digits. Once they are {lost or scales[-1]:g} "
        f"times larger, the naive form is inf/inf; the other two are unaffected.",
        f"At T = {lengths[-1]:,} the online form's error is {last['online']:.0e} against {last['two passes']:.0e}: its "
        f"sum grows block by block, NumPy's in pairs.",
    )
    figures = {
        "lengths": lengths,
        "error_over_length": over_length,
        "scales": scales,
        "error_over_scale": {way: [e if np.isfinite(e) else None for e in row] for way, row in over_scale.items()},
        "texts": contexts,
        "memory_mib": {kind: [cost[0] for cost in costs[kind]] for kind in costs},
        "seconds": {kind: [cost[1] for cost in costs[kind]] for kind in costs},
        "attention_error": errors,
        "memory_growth": growth,
    }
    return Finding("online-softmax", text, picture, figures)
