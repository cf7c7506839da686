# stage: gradcheck | says: What passes as it is passes its gradient as it is, too.
import numpy as np


def partial_rope_forward(x, cos, sin):
    n = cos.shape[-1]
    x1, x2 = x[..., :n], x[..., n : 2 * n]
    y = x.copy()
    y[..., :n] = x1 * cos - x2 * sin
    y[..., n : 2 * n] = x2 * cos + x1 * sin
    return y, (cos, sin)


def partial_rope_backward(dy, cache):
    cos, sin = cache
    dx, _ = partial_rope_forward(dy, cos, -sin)
    dx[..., 2 * cos.shape[-1] :] = 0
    return dx
