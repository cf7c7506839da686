import numpy as np


def stencil(offsets, order):
    """offsets: (n,) floats   order: an integer, 0 <= order < n   -> weights (n,)"""
    ...
