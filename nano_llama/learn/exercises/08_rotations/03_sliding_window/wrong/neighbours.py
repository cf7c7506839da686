# stage: smallest | says: In this cache feature i is turned with feature i + K/2.
import numpy as np


def slide(keys, dropped, frequencies):
    kept = keys[dropped:]  # (S - dropped, K)
    angles = -dropped * frequencies  # (K/2,)
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = kept[:, 0::2], kept[:, 1::2]
    return np.stack((first * cos - second * sin, second * cos + first * sin), axis=-1).reshape(kept.shape)
