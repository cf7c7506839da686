# stage: smallest | says: Feature i goes with feature i + n: the planes lie among the first 2 n features, not across the whole head.
import numpy as np


def partial_rope_forward(x, cos, sin):
    n = cos.shape[-1]
    h = x.shape[-1] // 2
    x1, x2 = x[..., :n], x[..., h : h + n]
    y = x.copy()
    y[..., :n] = x1 * cos - x2 * sin
    y[..., h : h + n] = x2 * cos + x1 * sin
    return y, (cos, sin)


def partial_rope_backward(dy, cache):
    cos, sin = cache
    dx, _ = partial_rope_forward(dy, cos, -sin)
    return dx
