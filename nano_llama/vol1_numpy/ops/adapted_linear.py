"""The linear op of a model whose matrices are frozen: with an adapter, LoRA or DoRA, beside a matrix, or without one.

It takes the place of `linear` in the table of ops (registry.py), so a layer multiplies by its matrices as ever.
Tests: tests/vol1/test_vol1_finetune.py.
"""

from dataclasses import dataclass

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.dora_linear import dora_linear_backward, dora_linear_forward, row_lengths
from nano_llama.vol1_numpy.ops.frozen_linear import frozen_linear_backward, frozen_linear_forward
from nano_llama.vol1_numpy.ops.lora_linear import lora_linear_backward, lora_linear_forward


@dataclass(frozen=True, kw_only=True)
class AdaptedMatrix:
    """A frozen matrix and the adapter beside it."""

    weight: Array  # (out, in)
    lora_A: Array  # (r, in)
    lora_B: Array  # (out, r)
    lora_magnitude_vector: Array | None = None  # (out,), DoRA's
    scale: float


def adapted_linear_forward(x: Array, matrix: Array | AdaptedMatrix) -> tuple[Array, Cache]:
    """x: (..., in)   matrix: (out, in), as an array where it has no adapter   -> y (..., out)"""
    if not isinstance(matrix, AdaptedMatrix):
        y, cache = frozen_linear_forward(x, matrix)
        return y, ("frozen", cache)
    W, A, B, m, scale = matrix.weight, matrix.lora_A, matrix.lora_B, matrix.lora_magnitude_vector, matrix.scale
    if m is None:
        y, cache = lora_linear_forward(x, W, A, B, scale)
        return y, ("lora", cache)
    y, cache = dora_linear_forward(x, W, A, B, m, scale, row_lengths(W, A, B, scale))
    return y, ("dora", cache)


def adapted_linear_backward(dy: Array, cache: Cache) -> tuple[Array, dict[str, Array]]:
    """-> dx (..., in), {tensor of the adapter: gradient}: an empty dictionary for a matrix without one."""
    kind, cache = cache
    if kind == "frozen":
        return frozen_linear_backward(dy, cache), {}
    if kind == "lora":
        dx, dlora_A, dlora_B = lora_linear_backward(dy, cache)
        return dx, {"lora_A": dlora_A, "lora_B": dlora_B}
    dx, dlora_A, dlora_B, dmagnitude = dora_linear_backward(dy, cache)
    return dx, {"lora_A": dlora_A, "lora_B": dlora_B, "lora_magnitude_vector": dmagnitude}
