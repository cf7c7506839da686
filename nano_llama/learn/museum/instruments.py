"""Nine instruments: questions whose answer is known before the model is asked.

    python -m nano_llama.learn.museum.instruments        # in a room's folder: asks all of them of the room's files

Each returns what it found, or "" where all is as it should be. None needs data, most need less than a second, and none
sees everything: the book's page on the museum shows which fault slips through which.
Tests: tests/learn/museum/test_instruments.py.
"""

import sys
from collections.abc import Callable

import numpy as np

from nano_llama.core.config import LlamaConfig
from nano_llama.core.errors import NanoLlamaError
from nano_llama.core.loss import IGNORE_INDEX
from nano_llama.core.sampling import SamplingParams
from nano_llama.data.batches import ArrayTokens, Batches
from nano_llama.vol1_numpy.generate import KVCache, generate
from nano_llama.vol1_numpy.gradcheck import GradientMismatch, gradcheck_model
from nano_llama.vol1_numpy.masks import causal_mask
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.array import Array
from nano_llama.vol1_numpy.ops.attention import attention_backward, attention_forward
from nano_llama.vol1_numpy.ops.flash_attention import flash_attention_backward, flash_attention_forward
from nano_llama.vol1_numpy.ops.registry import PLAIN
from nano_llama.vol1_numpy.optim import AdamW, clip_by_global_norm

V, T = 29, 24
TOLERANCE = 1e-8  # in float64, where only the order of sums differs


def model(initializer_range: float = 0.3, threads: int = 1) -> Llama:
    """Two layers, four query heads over two key/value heads, tied: small, and with no two sizes equal that may differ.

    Weights are larger than usual, so that attention is not flat.
    """
    config = LlamaConfig(
        vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        initializer_range=initializer_range,
    )  # fmt: skip
    return Llama.init(config, seed=1, dtype=np.float64, threads=threads)


def batch() -> tuple[Array, Array]:
    """Tokens and targets (3,T), with tokens that repeat, and rows that count 1 and many targets."""
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, V, (2, 3, T))
    targets[rng.random((3, T)) < 0.3] = IGNORE_INDEX
    targets[0, :] = IGNORE_INDEX
    targets[0, 3] = 5
    return tokens, targets


def gradients() -> str:
    """Does each gradient equal the slope that differences measure?"""
    try:
        gradcheck_model(model(), *batch(), samples=4)
    except GradientMismatch as error:
        return str(error)
    return ""


def causality() -> str:
    """Do logits change with tokens that come later?"""
    tokens, changed = batch()[0], batch()[0]
    changed[:, T // 2 :] = (changed[:, T // 2 :] + 7) % V
    before, after = (model().forward(ids)[:, : T // 2] for ids in (tokens, changed))
    return _apart("the logits of the first half, with other tokens in the second", before, after)


def cache() -> str:
    """Are the logits the same whether a text is computed at once, in pieces, or token by token?"""
    llama, tokens = model(), batch()[0][:1]
    whole = llama.forward(tokens)
    for lengths in ([8] + [1] * (T - 8), [8, 8, 8]):
        past, pieces, done = KVCache(llama.config, T, dtype=llama.dtype), [], 0
        for length in lengths:
            pieces.append(llama.forward(tokens[:, done : done + length], past=past))
            done += length
        if found := _apart("the logits, at once and in pieces", whole, np.concatenate(pieces, axis=1)):
            return found
    return ""


def twin() -> str:
    """Do the fast ops give what the plain ones give?"""
    (loss, grads), (plain_loss, plain_grads) = (
        llama.loss_and_grads(*batch()) for llama in (model(), Llama(model().config, model().params, ops=PLAIN))
    )
    for name, grad in {"loss": np.array(loss), **grads}.items():
        if found := _apart(
            f"{name}, by fast and by plain ops", grad, {"loss": np.array(plain_loss), **plain_grads}[name]
        ):
            return found
    return ""


def tiles() -> str:
    """Does attention by tiles give what attention at once gives, over more than one tile and with late maxima?"""
    rng, length = np.random.default_rng(0), 40
    q, k, v, dout = (rng.standard_normal((1, heads, length, 8)) for heads in (4, 2, 2, 4))
    k *= np.linspace(1, 4, length)[:, None]
    whole, whole_cache = attention_forward(q, k, v, causal_mask(length))
    tiled, tiled_cache = flash_attention_forward(q, k, v, causal_mask(length), 16)
    pairs = [(whole, tiled)]
    pairs += zip(attention_backward(dout, whole_cache), flash_attention_backward(dout, tiled_cache), strict=True)
    return next(filter(None, (_apart("attention at once and by tiles", *pair) for pair in pairs)), "")


def micro_batches() -> str:
    """Is one batch the same as its rows one after another?"""
    loss, grads = model().loss_and_grads(*batch())
    row_loss, row_grads = model().loss_and_grads(*batch(), micro_batch=1)
    if found := _apart("the loss, of a batch and of its rows", np.array(loss), np.array(row_loss)):
        return found
    each = (_apart(f"{name}, of a batch and of its rows", grads[name], row_grads[name]) for name in grads)
    return next(filter(None, each), "")


def first_loss() -> str:
    """Does a fresh model guess evenly: is its loss ln V?"""
    tokens = batch()[0]
    loss = model(initializer_range=0.02).loss(tokens[:, :-1], tokens[:, 1:])
    return "" if abs(loss - np.log(V)) < 0.1 else f"the first loss is {loss:.3f}; ln V is {np.log(V):.3f}"


def overfit() -> str:
    """Can it learn one short text by heart, and then write it?"""
    cycle = np.random.default_rng(0).permutation(V)[:12]
    batches, llama = Batches(ArrayTokens(np.tile(cycle, 12)), 4, T, seed=0), model(initializer_range=0.02)
    optimizer = AdamW(llama.params, 1e-2, weight_decay=0.01)
    for _ in range(60):
        loss, grads = llama.loss_and_grads(*next(batches))
        clip_by_global_norm(grads, 1.0)
        optimizer.step(llama.params, grads)
    if not loss < 0.1:
        return f"the loss of a text that repeats is {loss:.2f} after 60 steps"
    greedy = SamplingParams(temperature=0.0, max_tokens=12)
    written = list(generate(llama, np.tile(cycle, 2)[:14].tolist(), greedy, end_ids=()))
    expected = np.roll(cycle, -2).tolist()
    return "" if written == expected else f"it learned the text by heart, and writes {written}, not {expected}"


def reference() -> str:
    """Do logits and three optimizer steps equal those of another implementation: Volume 2's, with torch's AdamW?"""
    import torch

    from nano_llama.vol2_torch.model import Llama as TorchLlama

    ours, (tokens, targets) = model(), batch()
    theirs = TorchLlama.init(ours.config, dtype=torch.float64).load_params(ours.params)
    named = theirs.named_params()
    groups = [{"params": [p for p in named.values() if (p.ndim > 1) == decayed], "weight_decay": 0.1 * decayed}
              for decayed in (True, False)]  # fmt: skip
    torch_optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8)
    optimizer = AdamW(ours.params, 1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    logits = theirs(torch.from_numpy(tokens))
    if found := _apart("the logits, here and in PyTorch", ours.forward(tokens), logits.detach().numpy()):
        return found
    for step in range(1, 4):
        logits = theirs(torch.from_numpy(tokens))
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
        torch_optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        torch_optimizer.step()
        _, grads = ours.loss_and_grads(tokens, targets)
        clip_by_global_norm(grads, 0.5)
        optimizer.step(ours.params, grads)
        for name, param in ours.params.items():
            if found := _apart(
                f"{name} after step {step}, here and in PyTorch", param, named[name].detach().numpy(), 1e-6
            ):
                return found
    return ""


INSTRUMENTS: dict[str, Callable[[], str]] = {
    "gradients": gradients,
    "causality": causality,
    "cache": cache,
    "twin": twin,
    "tiles": tiles,
    "micro-batches": micro_batches,
    "first loss": first_loss,
    "overfit": overfit,
    "reference": reference,
}


def ask(name: str) -> str | None:
    """What an instrument found, "" where all is as it should be, None where it cannot be asked: torch is missing.

    A crash is a finding too.
    """
    try:
        with np.errstate(all="ignore"):
            return INSTRUMENTS[name]()
    except ModuleNotFoundError:
        return None
    except (NanoLlamaError, ArithmeticError, LookupError, ValueError, TypeError, AssertionError) as error:
        return f"{type(error).__name__}: {error}"


def _apart(what: str, one: Array, other: Array, tolerance: float = TOLERANCE) -> str:
    """How far two arrays are apart, if they are: the relative error of the house, max|a-b| / max|b|."""
    difference = float(np.max(np.abs(one - other)) / max(float(np.max(np.abs(other))), 1e-12))
    return "" if difference < tolerance else f"{what}: {difference:.1e} apart"


def main() -> int:
    findings = {name: ask(name) for name in INSTRUMENTS}
    for name, found in findings.items():
        print(f"{name:14}", {None: "not asked: it needs PyTorch", "": "ok"}.get(found, found))
    return int(any(findings.values()))


if __name__ == "__main__":
    sys.exit(main())
