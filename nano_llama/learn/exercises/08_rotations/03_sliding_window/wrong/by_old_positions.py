# stage: smallest | says: All keys move by the same distance, whatever their position was.
import numpy as np


def slide(keys, dropped, frequencies):
    kept = keys[dropped:]  # (S - dropped, K)
    angles = -np.arange(dropped, len(keys))[:, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    half = keys.shape[-1] // 2
    first, second = kept[:, :half], kept[:, half:]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
