"""Fewer, wider rows: r x r neighbouring patches side by side in one row, so that an image costs the LLaMA less context.

Tests: tests/vol1/vision/test_pixel_shuffle.py.
Source: Shi et al. 2016 (arXiv 1609.05158), whose operation this undoes, hence also "space to depth"; Laurençon et al.
2024 (arXiv 2408.12637), section 3.
"""

from nano_llama.vol1_numpy.ops.array import Array, Cache


def pixel_shuffle_forward(x: Array, scale_factor: int) -> tuple[Array, Cache]:
    """Patch (i r + a, j r + b) goes into row (i, j), at place (a, b) of the r x r places there; r is scale_factor.

        y[n, i t + j, (a r + b) D + d] = x[n, (i r + a) s + j r + b, d],   s patches a line, t = s / r

    x: (N, s*s, D)   -> y (N, t*t, r*r*D)
    """
    N, patches, D = x.shape
    r, side = scale_factor, round(patches**0.5)
    t = side // r
    blocks = x.reshape(N, t, r, t, r, D)  # (n, i, a, j, b, d)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(N, t * t, r * r * D), (x.shape, r)


def pixel_shuffle_backward(dy: Array, cache: Cache) -> Array:
    """A permutation P moves numbers and changes none: y = P x, so dx = P^T dy, and P^T is its inverse.

    -> dx (N, s*s, D)
    """
    (N, patches, D), r = cache
    t = round(patches**0.5) // r
    blocks = dy.reshape(N, t, t, r, r, D)  # (n, i, j, a, b, d)
    return blocks.transpose(0, 1, 3, 2, 4, 5).reshape(N, patches, D)
