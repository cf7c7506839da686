"""Flash attention in Triton's interpreter beside Volume 1's plain attention in float64: the shapes, and the check.

The interpreter's time goes by operations, not by their size: tiles are as large as a case allows.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

TOLERANCES = {"float64": (1e-12, 1e-12), "float32": (1e-5, 1e-4), "float16": (4e-3, 1e-2)}  # forward, gradients


@dataclass(frozen=True)
class Case:
    """B texts, H query heads on G key/value heads, T queries, S keys, head dim K."""

    B: int = 1
    H: int = 2
    G: int = 1
    T: int = 70
    S: int = 70
    K: int = 32
    causal: bool = True
    documents: str = ""  # "ascending", "shuffled": any order of numbers, "apart": queries and keys have none in common
    dtype: str = "float32"
    tiles: tuple[int, int] = (32, 32)
    logits: float = 1.0  # how many times larger the scores are

    def but(self, **changes: Any) -> "Case":
        return replace(self, **changes)


CASES = {
    "one tile": Case(T=32, S=32, tiles=(32, 32)),
    "one token": Case(T=1, S=1, tiles=(16, 16)),
    "ragged": Case(T=77, S=77, K=64),
    "ragged, not causal": Case(T=77, S=77, K=64, causal=False),
    "wide tiles of keys": Case(H=1, T=150, S=150, tiles=(32, 64)),
    "wide tiles of queries": Case(H=1, T=150, S=150, tiles=(64, 32)),
    "a whole number of tiles": Case(H=1, T=128, S=128, K=64, tiles=(64, 64)),
    "no groups": Case(B=2, H=2, G=2, T=50, S=50),
    "groups of three": Case(H=6, G=2, T=40, S=40, tiles=(64, 64)),
    "one key head": Case(H=4, G=1, T=40, S=40),
    "fewer queries than keys": Case(T=37, S=101),
    "one query": Case(T=1, S=45),
    "fewer queries than keys, not causal": Case(T=37, S=101, causal=False),
    "more queries than keys: the first see none": Case(T=101, S=37),
    "more queries than keys, not causal": Case(T=101, S=37, causal=False),
    "head dim 48": Case(K=48),
    "head dim 80": Case(K=80),
    "head dim 96": Case(K=96),
    "head dim 128": Case(K=128),
    "head dim 17": Case(K=17),
    "documents": Case(B=2, H=1, T=100, S=100, documents="ascending"),
    "documents, not causal": Case(H=1, T=100, S=100, documents="ascending", causal=False),
    "documents of any order": Case(H=1, T=100, S=100, documents="shuffled"),
    "documents, fewer queries than keys": Case(B=2, H=1, T=50, S=100, documents="ascending"),
    "no document in common": Case(T=40, S=40, documents="apart"),
    "documents, more than a chunk": Case(H=1, T=1100, S=1100, K=16, documents="ascending", tiles=(256, 256)),
    "float16": Case(T=77, S=77, K=64, dtype="float16"),
    "float16, documents, groups": Case(H=4, G=2, T=50, S=50, K=80, dtype="float16", documents="ascending"),
    "float64": Case(T=77, S=77, dtype="float64"),
    "large scores": Case(T=60, S=60, logits=30.0),
}


def inputs(case: Case, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray] | None]:
    """q (B,H,T,K), k, v (B,G,S,K), dout (B,H,T,K); the queries' documents (B,T) and the keys' (B,S), or None."""
    rng = np.random.default_rng(seed)
    shapes = [(case.H, case.T), (case.G, case.S), (case.G, case.S), (case.H, case.T)]
    arrays = [rng.standard_normal((case.B, *shape, case.K)).astype(case.dtype) for shape in shapes]
    arrays[0] *= np.asarray(case.logits, case.dtype)
    if not case.documents:
        return arrays, None
    keys = np.cumsum(rng.random((case.B, case.S)) < 0.05, axis=1)
    if case.documents == "shuffled":
        keys = rng.permutation(keys.max() + 1)[keys]
    queries = keys[:, case.S - case.T :]
    return arrays, [queries - 1000 if case.documents == "apart" else queries, keys]


def plain(case: Case, arrays: list[np.ndarray], documents: list[np.ndarray] | None) -> list[np.ndarray]:
    """Volume 1's attention of these inputs in float64: out, dq, dk, dv."""
    from nano_llama.vol1_numpy import ops

    q, k, v, dout = (array.astype(np.float64) for array in arrays)
    t, s = np.arange(case.T)[:, None], np.arange(case.S)
    mask = np.broadcast_to(s <= t + case.S - case.T if case.causal else True, (case.B, 1, case.T, case.S))
    if documents is not None:
        mask = mask & (documents[0][:, :, None] == documents[1][:, None, :])[:, None]
    out, cache = ops.attention_forward(q, k, v, mask)
    return [out, *ops.attention_backward(dout, cache)]


def flash(case: Case, arrays: list[np.ndarray], documents: list[np.ndarray] | None) -> list[np.ndarray]:
    """The kernels' out, dq, dk, dv."""
    import torch

    from nano_llama.vol2_torch.kernels import flash_attention
    from nano_llama.vol2_torch.kernels.flash_configs import KERNELS, KernelConfig, configs_set_to

    q, k, v, dout = (torch.from_numpy(array) for array in arrays)
    q, k, v = (x.requires_grad_() for x in (q, k, v))
    ids = [torch.from_numpy(np.ascontiguousarray(each)) for each in documents or ()]
    with configs_set_to(**dict.fromkeys(KERNELS, KernelConfig(*case.tiles, 4, 1))):
        out = flash_attention(q, k, v, case.causal, *ids)
        gradients = torch.autograd.grad(out, (q, k, v), dout)
    return [x.detach().numpy() for x in (out, *gradients)]


def check(case: Case, seed: int = 0) -> None:
    """AssertionError unless the kernels' results are the plain attention's, to the dtype's own precision."""
    arrays, documents = inputs(case, seed)
    expected, got = plain(case, arrays, documents), flash(case, arrays, documents)
    forward, backward = TOLERANCES[case.dtype]
    for name, right, ours in zip(("out", "dq", "dk", "dv"), expected, got, strict=True):
        assert ours.dtype == case.dtype
        tolerance = (forward if name == "out" else backward) * max(1.0, float(np.abs(right).max(initial=0)))
        np.testing.assert_allclose(ours, right, rtol=0, atol=tolerance, err_msg=f"{name} of {case}")
