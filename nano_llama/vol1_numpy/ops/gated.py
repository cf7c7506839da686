"""Gates with other activations than SiLU: swiglu.py's pair for whatever a config's hidden_act names.

Tests: tests/vol1/test_ops_gradients.py.
Source: Shazeer 2020, "GLU Variants Improve Transformer" (arXiv 2002.05202), eq. 5 and 6: GEGLU, ReGLU.
"""

from dataclasses import replace

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.gelu import gelu_backward, gelu_forward
from nano_llama.vol1_numpy.ops.registry import OpPair, Ops
from nano_llama.vol1_numpy.ops.relu import relu_backward, relu_forward, squared_relu_backward, squared_relu_forward

ACTIVATIONS = {
    "gelu_pytorch_tanh": OpPair(gelu_forward, gelu_backward),
    "relu": OpPair(relu_forward, relu_backward),
    "relu2": OpPair(squared_relu_forward, squared_relu_backward),
}


def with_activation(ops: Ops, hidden_act: str) -> Ops:
    """The table whose MLP opens its gate so; SiLU's is there already."""
    return ops if hidden_act == "silu" else replace(ops, swiglu=gated(ACTIVATIONS[hidden_act]))


def gated(activation: OpPair) -> OpPair:
    """y = f(gate) * up, and the product rule."""

    def forward(gate: Array, up: Array) -> tuple[Array, Cache]:
        """gate, up: (..., F)   -> y (..., F)"""
        opened, cache = activation.forward(gate)  # (..., F)
        return opened * up, (opened, up, cache)

    def backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
        """dgate = (dy * up) f'(gate),  dup = dy * f(gate)    -> dgate (..., F), dup (..., F)"""
        opened, up, activation_cache = cache
        return activation.backward(dy * up, activation_cache), dy * opened

    return OpPair(forward, backward)
