import numpy as np


def max_norm_forward(tokens, E, c):
    """tokens: (N,) integers   E: (V,D)   c: a number   -> y (N,D), and what backward needs"""
    ...
    # return y, cache


def max_norm_backward(dy, cache):
    """dy: (N,D)   -> dE (V,D)"""
    ...
    # return dE
