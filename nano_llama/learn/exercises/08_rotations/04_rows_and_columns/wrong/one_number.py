# stage: smallest | says: A cell has two coordinates; that counts cells one after the other.
import numpy as np


def grid_rope_forward(x, frequencies):
    rows, columns = x.shape[:2]
    n = len(frequencies)
    cell = np.arange(rows)[:, None] * columns + np.arange(columns)
    angles = np.zeros((rows, columns, 2 * n))
    angles[..., :n] = cell[..., None] * frequencies
    angles[..., n:] = cell[..., None] * frequencies
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    return turned(x, cos, sin), (cos, sin)


def grid_rope_backward(dy, cache):
    cos, sin = cache
    return turned(dy, cos, -sin)


def turned(x, cos, sin):
    x1, x2 = x[..., 0::2], x[..., 1::2]
    y = np.empty_like(x)
    y[..., 0::2] = x1 * cos - x2 * sin
    y[..., 1::2] = x2 * cos + x1 * sin
    return y
