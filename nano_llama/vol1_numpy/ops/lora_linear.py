"""A frozen matrix with a learned correction of low rank beside it: what LoRA trains instead of the matrix.

Tests: tests/vol1/test_ops_gradients.py, tests/vol1/test_ops_lora_linear.py.
Source: Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models" (arXiv 2106.09685), section 4.1, eq. 3.
The scale is core/lora.py's: alpha / r, or with rsLoRA alpha / sqrt(r).
"""

from nano_llama.vol1_numpy.ops.array import Array, Cache


def lora_linear_forward(x: Array, weight: Array, lora_A: Array, lora_B: Array, scale: float) -> tuple[Array, Cache]:
    """y = x W^T + scale (x A^T) B^T:  the product with W + scale B A, without ever forming that matrix.

    x: (..., in)   weight: (out, in)   lora_A: (r, in)   lora_B: (out, r)   -> y (..., out)

    B A has in * out entries, but only r (in + out) of them are free: with r far below both, that is what there is to
    train and to store. B starts at zero, so that the adapted layer begins as the layer it adapts.
    """
    rows = x.reshape(-1, x.shape[-1])  # (N, in)
    low = scale * (rows @ lora_A.T)  # (N, r), scaled here, where it is thin
    y = rows @ weight.T  # (N, out)
    y += low @ lora_B.T
    return y.reshape(*x.shape[:-1], weight.shape[0]), (rows, low, weight, lora_A, lora_B, scale)


def lora_linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array, Array]:
    """Two linear layers in a row beside a third, all by linear.py's rule: dx = dy W for the input, dy^T x for a matrix.

        the upper one, low B^T:                             dB = dy^T low,   dlow = dy B
        the lower one, low = scale * x A^T,
        takes g = scale * dlow:                             dA = g^T x,      and to x goes g A
        the frozen one, x W^T:                                               and to x goes dy W

    x feeds two branches, so dx = dy W + g A. W itself gets no gradient: dW = dy^T x, the third of an ordinary layer's
    three large products, is never computed, and an optimizer keeps no state for it. At the start B = 0, so dA = 0 and
    only B moves; were A zero as well, nothing ever would.
    -> dx (..., in), dlora_A (r, in), dlora_B (out, r)
    """
    rows, low, weight, lora_A, lora_B, scale = cache
    dy_rows = dy.reshape(-1, dy.shape[-1])  # (N, out)
    g = scale * (dy_rows @ lora_B)  # (N, r)
    dx = dy_rows @ weight  # (N, in)
    dx += g @ lora_A
    return dx.reshape(*dy.shape[:-1], weight.shape[1]), g.T @ rows, dy_rows.T @ low
