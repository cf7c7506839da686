"""LoRA with lengths and directions apart: every row of the adapted matrix is rescaled to a length that is learned too.

Tests: tests/vol1/test_ops_gradients.py, tests/vol1/test_ops_dora_linear.py.
Source: Liu et al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation" (arXiv 2402.09353), eq. 5 and section 4.3.
"""

import numpy as np

from nano_llama.vol1_numpy.ops.array import Array, Cache
from nano_llama.vol1_numpy.ops.lora_linear import lora_linear_backward, lora_linear_forward


def row_lengths(weight: Array, lora_A: Array, lora_B: Array, scale: float) -> Array:
    """c_o = |W_o + scale B_o A|, the length of each row.    weight: (out, in)   -> (out,)

    A row of zeros, such as a padded vocabulary has, gets the smallest positive number: divided by it, it stays zero.
    """
    lengths = np.linalg.norm(weight + scale * (lora_B @ lora_A), axis=1)  # (out,)
    return np.maximum(lengths, np.finfo(lengths.dtype).tiny)


def dora_linear_forward(
    x: Array,
    weight: Array,
    lora_A: Array,
    lora_B: Array,
    lora_magnitude_vector: Array,
    scale: float,
    lengths: Array,
) -> tuple[Array, Cache]:
    """y_o = (m_o / c_o) u_o,   u = x W^T + scale (x A^T) B^T:  the product with rows of direction V_o and length m_o,

    where V = W + scale B A and c_o = |V_o|.    x: (..., in)   weight: (out, in)   lora_A: (r, in)   lora_B: (out, r)
    lora_magnitude_vector: m, (out,)   lengths: c, (out,), from row_lengths   -> y (..., out)

    m starts as the lengths of W's rows, and B as zero, so that the adapted layer begins as the layer it adapts.
    """
    u, lora = lora_linear_forward(x, weight, lora_A, lora_B, scale)  # (..., out)
    rescaling = lora_magnitude_vector / lengths  # (out,)
    return u * rescaling, (u, rescaling, lengths, lora)


def dora_linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array, Array]:
    """Each column o of u is multiplied by one number, m_o / c_o. By the product rule, with c as a constant,

        du[n,o] = dy[n,o] m_o / c_o,            which goes on through lora_linear_backward to x, A and B
        dm_o    = sum_n dy[n,o] u[n,o] / c_o,   since all positions share m

    But c = |V_o| moves with A and B. With the direction v = V_o / c_o, the whole derivative is

        d(V_o / c_o) = (dV_o - v (v . dV_o)) / c_o      since  dc_o = v . dV_o

    and what the second term takes away is the part along the row itself, which changes no direction. Section 4.3 leaves
    that term out: it costs a second matrix as large as W, and hardly changes what is learned. So do we, and PEFT. To
    leave it out is to take c for a number that is given, and so the forward takes it: as an argument that has no
    gradient. What is kept for this backward is u, as large as the layer's output: DoRA's price in memory.
    -> dx (..., in), dlora_A (r, in), dlora_B (out, r), dlora_magnitude_vector (out,)
    """
    u, rescaling, lengths, lora = cache
    dx, dlora_A, dlora_B = lora_linear_backward(dy * rescaling, lora)
    return dx, dlora_A, dlora_B, np.sum(dy * u, axis=tuple(range(u.ndim - 1))) / lengths
