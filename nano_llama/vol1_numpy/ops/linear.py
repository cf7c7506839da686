"""A matrix product without bias: the only place of a LLaMA, besides attention, where features mix.

Tests: tests/vol1/test_ops_gradients.py.
"""

from nano_llama.vol1_numpy.ops.array import Array, Cache


def linear_forward(x: Array, weight: Array) -> tuple[Array, Cache]:
    """y = x W^T:  y[n,o] = sum_i x[n,i] W[o,i].    x: (..., in)   weight: (out, in)   -> y (..., out)

    The leading axes are merged first: one product of (N, in) by (in, out) instead of a product per batch entry.
    """
    rows = x.reshape(-1, x.shape[-1])  # (N, in)
    y = rows @ weight.T  # (N, out)
    return y.reshape(*x.shape[:-1], weight.shape[0]), (rows, weight)


def linear_backward(dy: Array, cache: Cache) -> tuple[Array, Array]:
    """By the chain rule, with dL/dy[n,o] = dy[n,o]:

        dx[n,i] = sum_o dy[n,o] * dy[n,o]/dx[n,i] = sum_o dy[n,o] W[o,i]        so  dx = dy W
        dW[o,i] = sum_n dy[n,o] x[n,i]                                          so  dW = dy^T x

    A rule of thumb that always works: of the two factors at hand, only one product has the right shape.
    -> dx (..., in), dweight (out, in)
    """
    x, weight = cache
    dy_rows = dy.reshape(-1, dy.shape[-1])  # (N, out)
    dx = dy_rows @ weight  # (N, in)
    return dx.reshape(*dy.shape[:-1], weight.shape[1]), dy_rows.T @ x
