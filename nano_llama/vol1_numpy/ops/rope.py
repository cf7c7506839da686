"""RoPE: queries and keys are rotated by angles that grow with position, so that their products see only distances.

The angles of each kind of RoPE are in core/rope.py. Tests: tests/vol1/test_ops_rope.py.
Source: Su et al. 2021, "RoFormer" (arXiv 2104.09864), eq. 13, 15 and 34.

Two features form a plane and are rotated by the angle a of their position:

    (y1, y2) = (x1 cos a - x2 sin a,  x2 cos a + x1 sin a)

Which two is a convention. "half": feature i with feature i + K/2, as Hugging Face's weights expect. "interleaved":
2i with 2i + 1, as in the paper and in Meta's weights. One is the other after a permutation of W_q's and W_k's rows.
Why it works: a rotated query at position t times a rotated key at s gives q^T R(t)^T R(s) k = q^T R(s - t) k.
"""

import numpy as np

from nano_llama.core.errors import UserError
from nano_llama.vol1_numpy.ops.array import Array, Cache


def rope_forward(x: Array, cos: Array, sin: Array, layout: str = "half") -> tuple[Array, Cache]:
    """Rotate each pair of features by its angle.    x: (B,H,T,K)   cos, sin: (T,K/2)   -> y (B,H,T,K)

    If each sequence has its own positions, pass tables of (B,1,T,K/2), which broadcast.

    Raises UserError when `layout` is neither "half" nor "interleaved".
    """
    first, second = _pairs(x.shape[-1], layout)
    x1, x2 = x[..., first], x[..., second]  # (B,H,T,K/2) each
    y = np.empty_like(x)
    y[..., first] = x1 * cos - x2 * sin
    y[..., second] = x2 * cos + x1 * sin
    return y, (cos, sin, layout)


def rope_backward(dy: Array, cache: Cache) -> Array:
    """y = R x in each plane, with R = [[cos, -sin], [sin, cos]], so dx = R^T dy:

        dx1 = dy1 cos + dy2 sin,   dx2 = dy2 cos - dy1 sin

    that is, the rotation by the opposite angle. Angles follow from positions and have no gradient.  -> dx (B,H,T,K)
    """
    cos, sin, layout = cache
    dx, _ = rope_forward(dy, cos, -sin, layout)
    return dx


def _pairs(head_dim: int, layout: str) -> tuple[slice, slice]:
    """The places of the first and the second feature of every pair."""
    if layout == "half":
        return slice(0, head_dim // 2), slice(head_dim // 2, head_dim)
    if layout == "interleaved":
        return slice(0, None, 2), slice(1, None, 2)
    raise UserError(f"rope: layout = {layout!r} is unknown.", hint='Choose "half" or "interleaved".')


# -- the same, faster: skip it on a first reading ----------------------------------------------------------------------


def rope_forward_fast(x: Array, cos: Array, sin: Array, layout: str = "half") -> tuple[Array, Cache]:
    """The same as  y = x cos + x' sin,  where x' = (-x2, x1) is x rotated by a right angle: a long product and a long
    sum instead of several over halves of heads, whose 16 or 32 numbers are too few for NumPy's inner loops.
    """
    first, second = _pairs(x.shape[-1], layout)
    wide = np.empty((*cos.shape[:-1], x.shape[-1]), cos.dtype)  # (T,K)
    wide[..., first] = wide[..., second] = cos
    turned = np.empty_like(x)
    np.multiply(x[..., second], -sin, out=turned[..., first])
    np.multiply(x[..., first], sin, out=turned[..., second])
    y = x * wide
    y += turned
    return y, (cos, sin, layout)


def rope_backward_fast(dy: Array, cache: Cache) -> Array:
    """As rope_backward: the rotation by the opposite angle."""
    cos, sin, layout = cache
    return rope_forward_fast(dy, cos, -sin, layout)[0]
