# stage: smallest | says: The keys that stay have new positions, and must be turned to them.
import numpy as np


def slide(keys, dropped, frequencies):
    kept = keys[dropped:]  # (S - dropped, K)
    angles = -dropped * frequencies  # (K/2,)
    cos, sin = np.cos(angles), np.sin(angles)
    half = keys.shape[-1] // 2
    first, second = kept[:, :half], kept[:, half:]
    return kept
