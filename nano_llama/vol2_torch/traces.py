"""Look inside a forward pass: any activation, attention weight or residual stream, by name.

Tests: tests/vol2/test_traces.py.

    with Trace(model, ["model.layers.0", "model.layers.3.self_attn.weights"]) as trace:
        model(tokens)
    trace["model.layers.3.self_attn.weights"]      # (B,H,T,T)

The names are those of core/names.py's `trace_names`, in every volume. The model runs as usual, fused attention
included; the attention weights, which that kernel never forms, are computed in addition from the same queries and keys.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from nano_llama.core.errors import UserError
from nano_llama.core.names import trace_names
from nano_llama.vol2_torch.model import Attention, Llama, rotate


class Trace(Mapping[str, Tensor]):
    """Records the named tensors of each forward pass run inside the `with` block; the last pass is kept.

    names: some of `trace_names(config)`, or None for all. Raises UserError for a name that does not exist.
    Recorded tensors are detached; they are not copied, since a forward pass writes no tensor twice.
    """

    def __init__(self, model: Llama, names: Iterable[str] | None = None):
        known = trace_names(model.config)
        self.names = known if names is None else list(names)
        for name in self.names:
            if name not in known:
                raise UserError(
                    f"Unknown trace name {name!r}.",
                    hint=f"Names look like {known[1]!r} or {known[-1]!r}: core/names.py's trace_names lists all.",
                )
        self._model = model
        self._tensors: dict[str, Tensor] = {}
        self._hooks: list[Any] = []

    def __enter__(self) -> "Trace":
        for name in self.names:
            if name.endswith(".self_attn.weights"):
                attention = self._model.get_submodule(name.removesuffix(".weights"))
                self._hooks.append(attention.register_forward_pre_hook(partial(self._keep_weights, name)))
            elif name == "lm_head":
                self._hooks.append(self._model.register_forward_hook(partial(self._keep, name)))
            else:
                module = self._model.get_submodule(name)
                self._hooks.append(module.register_forward_hook(partial(self._keep, name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _keep(self, name: str, module: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        self._tensors[name] = output.detach()

    @torch.no_grad()
    def _keep_weights(self, name: str, module: Attention, inputs: tuple[Any, ...]) -> None:
        self._tensors[name] = attention_weights(module, *inputs)

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise KeyError(f"{name!r} was not recorded; recorded are {', '.join(self._tensors) or 'none yet'}")
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return (name for name in self.names if name in self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def attention_weights(
    attention: Attention, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None, cache: Any = None
) -> Tensor:
    """softmax(q k^T / sqrt(K)) of one layer for its input x (B,T,D) -> (B,H,T,T).  Vaswani et al. 2017, eq. 1."""
    if cache is not None and cache.filled:
        raise UserError("Attention weights are traced over a whole sequence.", hint="Run the model without a cache.")
    T, K = x.shape[1], attention.head_dim
    q = rotate(attention.heads(attention.q_proj(x)), cos, sin)  # (B,H,T,K)
    k = rotate(attention.heads(attention.k_proj(x)), cos, sin)  # (B,G,T,K)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # (B,H,T,K)
    scores = q @ k.transpose(-1, -2) / K**0.5  # (B,H,T,T)
    if mask is None:
        mask = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
    return scores.masked_fill(~mask, float("-inf")).softmax(-1)
