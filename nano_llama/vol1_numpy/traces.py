"""The activations inside a forward pass: every value that core/names.py's `trace_names` names, as arrays.

    trace(model, tokens)["model.layers.0.self_attn.weights"]     (B,H,T,T): which position attends to which

The model knows nothing of it: its ops are called through a table, and here through one that also records the results.
An op's weight tells which tensor a result is. Attention runs in its plain form, the only one that has the weights of
all pairs. Tests: tests/vol1/test_vol1_traces.py.
"""

from collections.abc import Collection
from typing import Any

from nano_llama.core.errors import UserError
from nano_llama.core.names import EMBED, trace_names
from nano_llama.vol1_numpy.model import Llama
from nano_llama.vol1_numpy.ops.adapted_linear import AdaptedMatrix
from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.attention import attention_weights
from nano_llama.vol1_numpy.ops.registry import PLAIN, OpPair


def trace(
    model: Llama, tokens: Array, names: Collection[str] | None = None, *, mask: Array | None = None
) -> dict[str, Array]:
    """Run model.forward(tokens (B,T), mask=mask) and return {name: value}, in the order of the forward pass.

    names: which values; None: all of `trace_names(model.config)`, whose docstring has the shapes.
    Raises UserError for a name that does not exist.
    """
    known = trace_names(model.config)
    for name in names or ():
        if name not in known:
            raise UserError(f"Unknown trace name {name!r}.", hint=f"For example: {known[0]}, {known[1]}, ...")
    found: dict[str, Array] = {}
    recorder = _Recorder(model, known if names is None else names, found)
    recorder.forward(tokens, mask=mask)
    return {name: found[name] for name in known if name in found}


class _Recorder:
    """A shallow copy of the model, on the same weights, whose ops and layers record what they return."""

    def __init__(self, model: Llama, wanted: Collection[str], found: dict[str, Array]):
        self.names = {id(array): name.removesuffix(".weight") for name, array in model.params.items()}
        self.wanted, self.found, self.ops, self.layer = set(wanted), found, model.ops, 0
        runner = model.with_ops(
            embedding=OpPair(self.embedding, model.ops.embedding.backward),
            linear=OpPair(self.linear, model.ops.linear.backward),
            rmsnorm=OpPair(self.rmsnorm, model.ops.rmsnorm.backward),
            attention=OpPair(self.attention, model.ops.attention.backward),
        )
        self.run_layer = runner.layer_forward
        vars(runner)["layer_forward"] = self.layer_forward
        self.forward = runner.forward

    def record(self, name: str, value: Array) -> None:
        if name in self.wanted:
            self.found[name] = value

    def embedding(self, tokens: Array, weight: Array) -> tuple[Array, Cache]:
        y, cache = self.ops.embedding.forward(tokens, weight)
        self.record("model.embed_tokens", y)
        return y, cache

    def linear(self, x: Array, matrix: Array | AdaptedMatrix) -> tuple[Array, Cache]:
        y, cache = self.ops.linear.forward(x, matrix)
        name = self.names[id(matrix.weight if isinstance(matrix, AdaptedMatrix) else matrix)]
        self.record("lm_head" if name == EMBED.removesuffix(".weight") else name, y)  # a tied head
        return y, cache

    def rmsnorm(self, x: Array, weight: Array, eps: float) -> tuple[Array, Cache]:
        y, cache = self.ops.rmsnorm.forward(x, weight, eps)
        self.record(self.names[id(weight)], y)
        return y, cache

    def attention(self, q: Array, k: Array, v: Array, mask: Array | None) -> tuple[Array, Cache]:
        y, cache = PLAIN.attention.forward(q, k, v, mask)
        self.record(f"model.layers.{self.layer}.self_attn.weights", attention_weights(cache))
        return y, cache

    def layer_forward(self, x: Array, index: int, ctx: Any) -> tuple[Array, Cache]:
        self.layer = index
        y, cache = self.run_layer(x, index, ctx)
        self.record(f"model.layers.{index}", y)
        return y, cache
