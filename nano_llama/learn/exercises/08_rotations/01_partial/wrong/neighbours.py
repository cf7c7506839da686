# stage: smallest | says: That pairs neighbours, 2 i with 2 i + 1; here i goes with i + n.
import numpy as np


def partial_rope_forward(x, cos, sin):
    n = cos.shape[-1]
    x1, x2 = x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]
    y = x.copy()
    y[..., 0 : 2 * n : 2] = x1 * cos - x2 * sin
    y[..., 1 : 2 * n : 2] = x2 * cos + x1 * sin
    return y, (cos, sin)


def partial_rope_backward(dy, cache):
    cos, sin = cache
    dx, _ = partial_rope_forward(dy, cos, -sin)
    return dx
