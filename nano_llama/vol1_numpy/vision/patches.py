"""From pixels to rows: an image is cut into square patches, and each patch goes through one matrix.

Frameworks write this as a convolution whose stride is its kernel's size. Then no pixel belongs to two patches, so
the convolution is a reordering of the pixels (unfold) and a matrix product, and its gradient needs no formula of its
own. Tests: tests/vol1/vision/test_patches.py, which compares it with a convolution.
Source: Dosovitskiy et al. 2020 (arXiv 2010.11929), eq. 1.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.affine import affine_backward, affine_forward
from nano_llama.vol1_numpy.ops.array import Array, Cache


def unfold_forward(pixel_values: Array, patch_size: int) -> tuple[Array, Cache]:
    """Each patch's pixels as a row: channel by channel, and in a channel line by line; patches line by line too.

        y[n, i s + j, (c P + p) P + q] = x[n, c, i P + p, j P + q],   s patches a line, P pixels along a patch

    Pixels that are left over at the right and lower edge belong to no patch.
    pixel_values: (N,3,S,S)   -> y (N, s*s, 3*P*P)
    """
    N, C, S, _ = pixel_values.shape
    P, side = patch_size, S // patch_size
    used = pixel_values[:, :, : side * P, : side * P]
    cut = used.reshape(N, C, side, P, side, P)  # (n, c, i, p, j, q)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(N, side * side, C * P * P), (pixel_values.shape, P)


def unfold_backward(dy: Array, cache: Cache) -> Array:
    """y holds a pixel once or, left over, not at all, so its gradient is that of its place in y, or zero: the axes go
    back.

    -> dpixel_values (N,3,S,S)
    """
    (N, C, S, _), P = cache
    side = S // P
    cut = dy.reshape(N, side, side, C, P, P)  # (n, i, j, c, p, q)
    dpixels = np.zeros((N, C, S, S), dy.dtype)
    dpixels[:, :, : side * P, : side * P] = cut.transpose(0, 3, 1, 4, 2, 5).reshape(N, C, side * P, side * P)
    return dpixels


def patch_embedding_forward(
    pixel_values: Array, weight: Array, bias: Array, position_embedding: Array
) -> tuple[Array, Cache]:
    """x[n] = unfold(image n) W^T + b + positions.

    pixel_values: (N,3,S,S)   weight: (D,3,P,P), a convolution's kernel   bias: (D,)   position_embedding: (s*s, D)
    -> x (N, s*s, D)

    A learned row per place in the image says where a patch was: nothing else does, attention sees a set. Idefics3
    looks the row up by the patch's fractional coordinates, for images that are smaller than image_size or not square;
    for a square image of full size that is row i s + j for patch (i, j), the table as it is.
    """
    patches, unfold = unfold_forward(pixel_values, weight.shape[-1])  # (N, s*s, 3*P*P)
    x, affine = affine_forward(patches, weight.reshape(len(weight), -1), bias)  # (N, s*s, D)
    x += position_embedding
    return x, (unfold, affine, weight.shape)


def patch_embedding_backward(dx: Array, cache: Cache) -> tuple[Array, Array, Array, Array]:
    """affine_backward and unfold_backward. A position is added to its patch in all N images: the sum over them.

    -> dpixel_values (N,3,S,S), dweight (D,3,P,P), dbias (D,), dposition_embedding (s*s, D)
    """
    unfold, affine, kernel = cache
    dpatches, dweight, dbias = affine_backward(dx, affine)
    return unfold_backward(dpatches, unfold), dweight.reshape(kernel), dbias, np.sum(dx, axis=0)
