import numpy as np


def check_causal(attend):
    """Raises AssertionError where attend(q, k, v) -> out lets a position see what follows it.

    q, k, v, out: (T,K), any T
    """
    ...
