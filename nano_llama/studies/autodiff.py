"""Study: derivatives by hand beside automatic ones. For every op: time forward and backward, memory kept in between.

Not here: the speed of a whole training step (bench/volume1.py). Needs torch. Tests: tests/studies/test_autodiff.py.

Both sides run on one thread, in float32, at the shapes of one layer of a small model. "Kept" are the bytes of all
arrays that forward holds for backward, without the op's own inputs: for NumPy what hangs on the cache, for torch what
autograd packs away (torch.autograd.graph.saved_tensors_hooks).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from nano_llama.core.errors import import_extra
from nano_llama.studies import Finding
from nano_llama.studies.drawing import BLUE, ORANGE, panels, save
from nano_llama.vol1_numpy import ops

MIB = 2**20


@dataclass(frozen=True)
class Pair:
    """One op, twice: the hand-written pair, and the function that autograd differentiates; `inputs` feed both."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    automatic: Callable[..., Any]
    inputs: tuple[np.ndarray, ...]  # floating ones first, in the order of backward's gradients


def make_pairs(torch: Any, B: int, T: int, D: int, H: int, F: int, V: int, seed: int) -> dict[str, Pair]:
    """Every op of a layer at these sizes. The hand-written forward takes exactly what `automatic` takes."""
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

    def automatic_rope(x):
        first, second = x.chunk(2, dim=-1)
        return torch.cat((first * tcos - second * tsin, second * tcos + first * tsin), dim=-1)

    def automatic_loss(logits):
        return functional.cross_entropy(logits.flatten(0, 1), ttargets.flatten())

    def automatic_attention(q, k, v):
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    heads = (draw(B, H, T, K), draw(B, H, T, K), draw(B, H, T, K))
    x, gain = draw(B, T, D), draw(D)
    return {
        "embedding": Pair(
            lambda w: ops.embedding_forward(tokens, w),
            ops.embedding_backward,
            lambda w: functional.embedding(ttokens, w),
            (draw(V, D),),
        ),
        "linear": Pair(ops.linear_forward, ops.linear_backward, functional.linear, (x, draw(F, D))),
        "rmsnorm": Pair(
            lambda x, w: ops.rmsnorm_forward(x, w, 1e-5),
            ops.rmsnorm_backward,
            lambda x, w: functional.rms_norm(x, (D,), w, 1e-5),
            (x, gain),
        ),
        "layernorm": Pair(
            lambda x, w, b: ops.layernorm_forward(x, w, b, 1e-5),
            ops.layernorm_backward,
            lambda x, w, b: functional.layer_norm(x, (D,), w, b, 1e-5),
            (x, gain, draw(D)),
        ),
        "softmax": Pair(
            ops.softmax_forward, ops.softmax_backward, lambda x: functional.softmax(x, dim=-1), (draw(B, H, T, T),)
        ),
        "swiglu": Pair(
            ops.swiglu_forward,
            ops.swiglu_backward,
            lambda gate, up: functional.silu(gate) * up,
            (draw(B, T, F), draw(B, T, F)),
        ),
        "rope": Pair(lambda x: ops.rope_forward(x, cos, sin), ops.rope_backward, automatic_rope, heads[:1]),
        "attention": Pair(
            lambda q, k, v: ops.attention_forward(q, k, v, causal), ops.attention_backward, automatic_attention, heads
        ),
        "flash attention": Pair(
            lambda q, k, v: ops.flash_attention_forward(q, k, v, causal, 64),
            ops.flash_attention_backward,
            automatic_attention,
            heads,
        ),
        "cross entropy": Pair(
            lambda logits: ops.cross_entropy_forward(logits, targets),
            ops.cross_entropy_backward,
            automatic_loss,
            (draw(B, T, V),),
        ),
    }


def output_gradient(out: Any) -> Any:
    """A random gradient for an op's output (1 for a loss), the same on both sides."""
    shape = tuple(out.shape) if np.ndim(out) else ()
    return np.random.default_rng(1).standard_normal(shape, np.float32) if shape else 1.0


def by_hand(pair: Pair, repeats: int) -> tuple[float, float, list[np.ndarray]]:
    """-> seconds of forward + backward, MiB kept, gradients"""
    out, cache = pair.forward(*pair.inputs)
    dout = output_gradient(out)
    kept = bytes_kept(cache, pair.inputs) / MIB
    del cache

    def once():
        return pair.backward(dout, pair.forward(*pair.inputs)[1])

    seconds, grads = best_time(once, repeats)
    return seconds, kept, list(grads) if isinstance(grads, tuple) else [grads]


def automatically(torch: Any, pair: Pair, repeats: int) -> tuple[float, float, list[np.ndarray]]:
    """The same through autograd."""
    inputs = [torch.from_numpy(a).requires_grad_() for a in pair.inputs]
    own = {t.untyped_storage().data_ptr() for t in inputs}
    saved: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = pair.automatic(*inputs)
    kept = sum(saved.values()) / MIB
    dout = torch.as_tensor(output_gradient(out.detach().numpy()))
    del out

    def once():
        return torch.autograd.grad(pair.automatic(*inputs), inputs, dout)

    seconds, grads = best_time(once, repeats)
    return seconds, kept, [grad.numpy() for grad in grads]


def best_time(function: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The least of some runs, after one that is not counted: what else the machine does can only add."""
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
    sizes = {"B": 2, "T": 64, "D": 64, "H": 4, "F": 172, "V": 512} if quick else {}
    sizes = sizes or {"B": 4, "T": 256, "D": 256, "H": 8, "F": 688, "V": 4096}
    repeats = 2 if quick else 7
    pairs = make_pairs(torch, **sizes, seed=seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            rows = {name: (by_hand(pair, repeats), automatically(torch, pair, repeats)) for name, pair in pairs.items()}
    finally:
        torch.set_num_threads(threads)

    error = max(
        float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))
        for hand, auto in rows.values()
        for a, b in zip(hand[2], auto[2], strict=True)
    )
    milliseconds = {name: (1e3 * hand[0], 1e3 * auto[0]) for name, (hand, auto) in rows.items()}
    kept = {name: (hand[1], auto[1]) for name, (hand, auto) in rows.items()}
    shape = ", ".join(f"{letter}={value}" for letter, value in sizes.items())
    figure, axes = panels([f"forward + backward, ms ({shape})", "kept for backward, MiB"], width=5.6, height=4.6)
    for ax, figures in zip(axes, (milliseconds, kept), strict=True):
        places = np.arange(len(figures))
        ax.barh(places - 0.2, [row[0] for row in figures.values()], 0.38, color=BLUE, label="by hand, NumPy")
        ax.barh(places + 0.2, [row[1] for row in figures.values()], 0.38, color=ORANGE, label="automatic, torch")
        ax.set_yticks(places, list(figures))
        ax.invert_yaxis()
        ax.legend(fontsize=8)
    save(figure, picture)

    ratio = {name: hand / auto for name, (hand, auto) in milliseconds.items()}
    best, worst = min(ratio, key=lambda name: ratio[name]), max(ratio, key=lambda name: ratio[name])
    hand_kept, auto_kept = (sum(row[side] for row in kept.values()) for side in (0, 1))
    text = (
        f"The hand-written gradients are autograd's: they differ by {error:.0e} at most, relatively. On one thread the "
        f"plain NumPy ops take between {ratio[best]:.1f} ({best}) and {ratio[worst]:.1f} ({worst}) times as long as "
        f"torch's. A matrix product costs both the same; the others pay for each pass over memory that a fused kernel "
        f"saves. Kept for backward beyond the inputs: {hand_kept:.0f} MiB by hand, {auto_kept:.0f} MiB automatically. "
        f"Attention keeps {kept['attention'][0]:.1f} MiB with its weights, {kept['flash attention'][0]:.1f} online."
    )
    return Finding(
        "autodiff",
        text,
        picture,
        {"sizes": sizes, "milliseconds": milliseconds, "mib_kept": kept, "ratio": ratio, "gradient_error": error},
    )
