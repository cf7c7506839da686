# stage: gradcheck | says: The backward of a rotation is the rotation by the opposite angle.
import numpy as np


def grid_rope_forward(x, frequencies):
    rows, columns = x.shape[:2]
    n = len(frequencies)
    down = np.arange(rows)[:, None] * frequencies  # (rows,n)
    along = np.arange(columns)[:, None] * frequencies  # (columns,n)
    angles = np.zeros((rows, columns, 2 * n))
    angles[..., :n] = down[:, None]
    angles[..., n:] = along[None]
    cos, sin = np.cos(angles).astype(x.dtype), np.sin(angles).astype(x.dtype)
    return turned(x, cos, sin), (cos, sin)


def grid_rope_backward(dy, cache):
    cos, sin = cache
    return turned(dy, cos, sin)


def turned(x, cos, sin):
    x1, x2 = x[..., 0::2], x[..., 1::2]
    y = np.empty_like(x)
    y[..., 0::2] = x1 * cos - x2 * sin
    y[..., 1::2] = x2 * cos + x1 * sin
    return y
