"""SwiGLU without its matrices: one branch of the MLP, through SiLU, gates the other.

Tests: tests/vol1/test_ops_gradients.py.
Source: Shazeer 2020, "GLU Variants Improve Transformer" (arXiv 2002.05202), eq. 5.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache, row_tiles
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


# -- the same, faster: skip it on a first reading ----------------------------------------------------------------------


def swiglu_forward_fast(gate: Array, up: Array) -> tuple[Array, Cache]:
    """The same, tile by tile and in place. Where exp(-x) overflows, 1 / (1 + inf) is the 0 that is meant."""
    y, s = np.empty_like(gate, order="C"), np.empty_like(gate, order="C")
    views = [a.reshape(-1, gate.shape[-1]) for a in (gate, up, s, y)]
    with np.errstate(over="ignore"):
        for tile in row_tiles(*views[0].shape):
            g, u, sigmoid, out = (a[tile] for a in views)
            np.negative(g, out=sigmoid)
            np.exp(sigmoid, out=sigmoid)
            sigmoid += 1
            np.reciprocal(sigmoid, out=sigmoid)
            np.multiply(g, sigmoid, out=out)
            out *= u
    return y, (gate, up, s)


def swiglu_backward_fast(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """The same, with silu'(x) = s (1 + x (1 - s)) as s + o (1 - s), where o = x s is what dup needs too."""
    gate, up, s = cache
    dgate, dup = np.empty_like(gate, order="C"), np.empty_like(gate, order="C")
    views = [a.reshape(-1, gate.shape[-1]) for a in (gate, up, s, dy, dgate, dup)]
    for tile in row_tiles(*views[0].shape):
        g, u, sigmoid, d, dg, du = (a[tile] for a in views)
        np.multiply(g, sigmoid, out=du)  # o
        np.subtract(1, sigmoid, out=dg)
        dg *= du
        dg += sigmoid
        dg *= u
        dg *= d
        du *= d
    return dgate, dup
