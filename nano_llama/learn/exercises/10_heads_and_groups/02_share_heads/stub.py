import numpy as np


def share_heads(weight, H, G, K):
    """weight: (H K, D), the rows of H heads   G: a divisor of H   -> (G K, D), the rows of G heads"""
    ...
    # return shared
