"""SwiGLU without its matrices: one branch of the MLP, through SiLU, gates the other.

Not here: the three projections around it (layer.py puts them together). Tests: tests/vol1/test_ops_elementary.py.
Source: Shazeer 2020, "GLU Variants Improve Transformer" (arXiv 2002.05202), eq. 5.
"""

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.silu import silu_backward, silu_forward


def swiglu_forward(gate: Array, up: Array) -> tuple[Array, Cache]:
    """y = silu(gate) * up.    gate, up: (..., F)   -> y (..., F)"""
    opened, cache = silu_forward(gate)  # (..., F)
    return opened * up, (opened, up, cache)


def swiglu_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """The product rule, then silu_backward on the gate's side:

        dgate = (dy * up) silu'(gate),   dup = dy * silu(gate)

    -> dgate (..., F), dup (..., F)
    """
    opened, up, silu_cache = cache
    return silu_backward(dy * up, silu_cache), dy * opened
