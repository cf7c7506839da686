import numpy as np


def check_groups(attend):
    """Raises AssertionError where attend(q, k, v) -> out is not grouped-query attention.

    q, out: (H,T,K)   k, v: (G,T,K), G a divisor of H; no mask
    """
    ...
