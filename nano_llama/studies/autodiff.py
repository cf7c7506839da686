"""Study: derivatives by hand beside automatic ones. For every op: time of forward and backward, memory in between.

Needs torch. The speed of a whole training step: bench/volume1.py. Tests: tests/studies/test_autodiff.py.

Three columns: the op as it is derived (PLAIN), its fast form where there is one (FAST), and torch's autograd; each on
one thread, in float32, at the shapes of one layer of a small model. "Kept" are the bytes of all arrays that forward
saves for backward, without the op's own inputs: for NumPy those in the cache, for torch those that autograd saves
(torch.autograd.graph.saved_tensors_hooks).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nano_llama.core.errors import import_extra
from nano_llama.core.figures import BLUE, GREEN, ORANGE, legend_above, panels, save
from nano_llama.studies.finding import Finding, points
from nano_llama.vol1_numpy import ops
from nano_llama.vol1_numpy.ops.registry import FAST, PLAIN, OpPair, Ops

MIB = 2**20
Measured = tuple[float, float, list[np.ndarray]]  # seconds of forward + backward, MiB kept, gradients


@dataclass(frozen=True, kw_only=True)
class Op:
    """One op in its forms; `inputs` feed them all, and each has a gradient."""

    plain: OpPair
    fast: OpPair | None = None
    automatic: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]


def make_ops(torch: Any, B: int, T: int, D: int, H: int, F: int, V: int, seed: int) -> dict[str, Op]:
    """Every op of a layer at these sizes."""
    functional = torch.nn.functional
    rng = np.random.default_rng(seed)
    K = D // H

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape, np.float32)

    tokens, targets = rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T))
    angles = np.outer(np.arange(T), 10000.0 ** (-np.arange(0, K, 2) / K))  # (T,K/2)
    cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    causal = np.tril(np.ones((T, T), bool))
    tcos, tsin, ttokens, ttargets = (torch.from_numpy(a) for a in (cos, sin, tokens, targets))

    def automatic_rope(x: Any) -> Any:
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * tcos - second * tsin, second * tcos + first * tsin), dim=-1)

    def automatic_loss(logits: Any) -> Any:
        return functional.cross_entropy(logits.flatten(0, 1), ttargets.flatten())

    def automatic_attention(q: Any, k: Any, v: Any) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    def by_table(table: Ops) -> dict[str, OpPair]:
        """A table's ops as functions of the inputs that have gradients; the others are bound."""
        return {
            "embedding": OpPair(lambda w: table.embedding.forward(tokens, w), table.embedding.backward),
            "linear": table.linear,
            "rmsnorm": OpPair(lambda x, w: table.rmsnorm.forward(x, w, 1e-5), table.rmsnorm.backward),
            "rope": OpPair(lambda x: table.rope.forward(x, cos, sin), table.rope.backward),
            "attention": OpPair(lambda q, k, v: table.attention.forward(q, k, v, causal), table.attention.backward),
            "swiglu": table.swiglu,
            "cross entropy": OpPair(lambda x: table.cross_entropy.forward(x, targets), table.cross_entropy.backward),
        }

    plain, fast = by_table(PLAIN), by_table(FAST)
    x, gain, heads = draw(B, T, D), draw(D), (draw(B, H, T, K), draw(B, H, T, K), draw(B, H, T, K))
    automatic: dict[str, tuple[Callable[..., Any], tuple[np.ndarray, ...]]] = {
        "embedding": (lambda w: functional.embedding(ttokens, w), (draw(V, D),)),
        "linear": (functional.linear, (x, draw(F, D))),
        "rmsnorm": (lambda x, w: functional.rms_norm(x, (D,), w, 1e-5), (x, gain)),
        "rope": (automatic_rope, heads[:1]),
        "attention": (automatic_attention, heads),
        "swiglu": (lambda gate, up: functional.silu(gate) * up, (draw(B, T, F), draw(B, T, F))),
        "cross entropy": (automatic_loss, (draw(B, T, V),)),
    }
    found = {
        name: Op(
            plain=plain[name],
            fast=None
            if getattr(FAST, name.replace(" ", "_")) == getattr(PLAIN, name.replace(" ", "_"))
            else fast[name],
            automatic=function,
            inputs=inputs,
        )
        for name, (function, inputs) in automatic.items()
    }
    found["layernorm"] = Op(
        plain=OpPair(lambda x, w, b: ops.layernorm_forward(x, w, b, 1e-5), ops.layernorm_backward),
        automatic=lambda x, w, b: functional.layer_norm(x, (D,), w, b, 1e-5),
        inputs=(x, gain, draw(D)),
    )
    found["softmax"] = Op(
        plain=OpPair(ops.softmax_forward, ops.softmax_backward),
        automatic=lambda x: functional.softmax(x, dim=-1),
        inputs=(draw(B, H, T, T),),
    )
    return found


def output_gradient(out: Any) -> Any:
    """A random gradient for an op's output (1 for a loss), the same on both sides."""
    shape = tuple(out.shape) if np.ndim(out) else ()
    return np.random.default_rng(1).standard_normal(shape, np.float32) if shape else 1.0


def by_hand(pair: OpPair, inputs: tuple[np.ndarray, ...], repeats: int) -> Measured:
    """Time, memory kept and gradients of a hand-written pair."""
    out, cache = pair.forward(*inputs)
    dout = output_gradient(out)
    kept = bytes_kept(cache, inputs) / MIB
    del cache

    def once() -> Any:
        return pair.backward(dout, pair.forward(*inputs)[1])

    seconds, grads = best_time(once, repeats)
    return seconds, kept, list(grads) if isinstance(grads, tuple) else [grads]


def automatically(torch: Any, function: Callable[..., Any], arrays: tuple[np.ndarray, ...], repeats: int) -> Measured:
    """The same through autograd."""
    inputs = [torch.from_numpy(a).requires_grad_() for a in arrays]
    own = {t.untyped_storage().data_ptr() for t in inputs}
    saved: dict[int, int] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = function(*inputs)
    kept = sum(saved.values()) / MIB
    dout = torch.as_tensor(output_gradient(out.detach().numpy()))
    del out

    def once() -> Any:
        return torch.autograd.grad(function(*inputs), inputs, dout)

    seconds, grads = best_time(once, repeats)
    return seconds, kept, [grad.numpy() for grad in grads]


def best_time(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The fastest of several runs after a warmup: other work on the machine can only add time."""
    result = function()
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        result = function()
        best = min(best, time.perf_counter() - began)
    return best, result


def bytes_kept(cache: Any, inputs: tuple[np.ndarray, ...]) -> int:
    """Bytes of the distinct memory that the arrays in `cache` hold, without the inputs'."""
    own = {id(_owner(array)) for array in inputs}
    owners = {id(owner): owner.nbytes for owner in map(_owner, _arrays(cache))}
    return sum(size for key, size in owners.items() if key not in own)


def _owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _arrays(item)
    elif hasattr(value, "__dict__"):
        yield from _arrays(list(vars(value).values()))


def run(picture: Path, seed: int = 0, quick: bool = False) -> Finding:
    torch = import_extra("torch", "train", "the study autodiff")
    small, usual = ({"B": 2, "T": 64, "D": 64, "H": 4, "F": 172, "V": 512},
                    {"B": 4, "T": 256, "D": 256, "H": 8, "F": 688, "V": 4096})  # fmt: skip
    sizes, repeats = (small, 2) if quick else (usual, 7)
    rows: dict[str, dict[str, Measured]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            for name, op in make_ops(torch, **sizes, seed=seed).items():
                rows[name] = {"plain": by_hand(op.plain, op.inputs, repeats)}
                if op.fast:
                    rows[name]["fast"] = by_hand(op.fast, op.inputs, repeats)
                rows[name]["torch"] = automatically(torch, op.automatic, op.inputs, repeats)
    finally:
        torch.set_num_threads(threads)

    milliseconds = {name: {form: 1e3 * m[0] for form, m in row.items()} for name, row in rows.items()}
    kept = {name: {form: m[1] for form, m in row.items()} for name, row in rows.items()}
    error = max(largest_difference(row[form][2], row["torch"][2]) for row in rows.values() for form in row)
    shape = ", ".join(f"{letter} = {value:,}" for letter, value in sizes.items())
    draw_bars(picture, milliseconds, kept, f"the ops of a LLaMA's layer, float32, one thread; {shape}; seed {seed}")

    ratio = {n: {form: t / row["torch"] for form, t in row.items()} for n, row in milliseconds.items()}
    slowest = max(ratio, key=lambda name: ratio[name]["plain"])
    of_llama = [row for name, row in milliseconds.items() if name not in ("layernorm", "softmax")]
    total = {form: sum(row.get(form, row["plain"]) for row in of_llama) for form in ("plain", "fast", "torch")}
    text = points(
        f"The hand-written gradients are autograd's: they differ by at most {error:.0e}, relatively.",
        f"On one thread a LLaMA's ops, one of each, take {total['plain']:.3g} ms as they are derived, "
        f"{total['fast']:.3g} ms in their fast form and {total['torch']:.3g} ms in torch.",
        f"A matrix product costs the same in all three; the worst plain op is {slowest} "
        f"({ratio[slowest]['plain']:.0f} times torch's time).",
        f"Kept for backward beyond the inputs: attention {kept['attention']['plain']:.1f} MiB plain, "
        f"{kept['attention']['fast']:.1f} fast, {kept['attention']['torch']:.1f} torch; cross entropy "
        f"{kept['cross entropy']['plain']:.1f}, {kept['cross entropy']['fast']:.1f} and "
        f"{kept['cross entropy']['torch']:.1f}.",
    )
    figures = {"sizes": sizes, "milliseconds": milliseconds, "mib_kept": kept, "ratio": ratio, "gradient_error": error}
    return Finding("autodiff", text, picture, figures)


def largest_difference(ours: list[np.ndarray], theirs: list[np.ndarray]) -> float:
    """max |a - b| / max |b|, the largest over the tensors."""
    pairs = zip(ours, theirs, strict=True)
    return max(float(np.abs(a - b).max() / max(float(np.abs(b).max()), 1e-12)) for a, b in pairs)


def draw_bars(
    picture: Path, milliseconds: dict[str, dict[str, float]], kept: dict[str, dict[str, float]], caption: str
) -> None:
    figure, axes = panels(["forward + backward", "kept for backward, beyond the inputs"], width=5.8, height=5.0)
    labels = {
        "plain": "by hand, as derived",
        "fast": "by hand, fast form (not every op has one)",
        "torch": "torch's autograd",
    }
    colors = dict(zip(labels, (BLUE, GREEN, ORANGE), strict=True))
    for ax, table in zip(axes, (milliseconds, kept), strict=True):
        longest = max(width for row in table.values() for width in row.values())
        for form, label in labels.items():
            rows = [(place, row) for place, row in enumerate(table.values()) if form in row]
            # an op's forms side by side, the middle of its bars at its tick
            places = [place + 0.27 * (list(row).index(form) - (len(row) - 1) / 2) for place, row in rows]
            widths = [row[form] for _, row in rows]
            bars = ax.barh(places, widths, 0.25, color=colors[form], label=label)
            short = ["" if width > 0.02 * longest else f"{width:.2g}" for width in widths]  # 0, or hard to see
            ax.bar_label(bars, short, padding=3, fontsize=8, color=colors[form])
        ax.set_yticks(range(len(table)), list(table))
        ax.invert_yaxis()
        ax.grid(visible=False, axis="y")  # a line would strike out its bar
    legend_above(figure, axes[0])
    axes[0].set_xlabel("milliseconds")
    axes[1].set_xlabel("MiB")
    save(figure, picture, caption)
