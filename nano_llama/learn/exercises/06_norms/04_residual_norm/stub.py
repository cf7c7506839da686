import numpy as np


def residual_norm_forward(x, delta, weight, eps):
    """x, delta: (N,D)   weight: (D,)   eps: a number   -> (h, y), both (N,D), and what backward needs"""
    ...
    # return (h, y), cache


def residual_norm_backward(dh, dy, cache):
    """dh, dy: (N,D)   -> dx (N,D), ddelta (N,D), dweight (D,)"""
    ...
    # return dx, ddelta, dweight
