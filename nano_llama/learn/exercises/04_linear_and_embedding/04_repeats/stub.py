import numpy as np


def check_backward(backward):
    """Raises AssertionError where backward(dy, tokens, V) -> dweight is wrong.

    dy: (B,T,D)   tokens: (B,T)   dweight: (V,D)
    """
    ...
