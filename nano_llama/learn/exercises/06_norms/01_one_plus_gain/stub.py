import numpy as np


def norm_forward(x, weight, eps):
    """x: (...,D)   weight: (D,)   eps: a number   -> y (...,D), and what backward needs"""
    ...
    # return y, cache


def norm_backward(dy, cache):
    """dy: (...,D)   -> dx (...,D), dweight (D,)"""
    ...
    # return dx, dweight
