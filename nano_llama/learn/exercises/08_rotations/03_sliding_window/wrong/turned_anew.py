# stage: smallest | says: The keys were turned already; to turn them to their new positions again adds up the two.
import numpy as np


def slide(keys, dropped, frequencies):
    kept = keys[dropped:]  # (S - dropped, K)
    angles = np.arange(len(kept))[:, None] * frequencies
    cos, sin = np.cos(angles), np.sin(angles)
    half = keys.shape[-1] // 2
    first, second = kept[:, :half], kept[:, half:]
    return np.concatenate((first * cos - second * sin, second * cos + first * sin), axis=-1)
