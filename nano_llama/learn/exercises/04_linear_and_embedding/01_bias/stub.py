import numpy as np


def linear_forward(x, weight, bias):
    """x: (...,I)   weight: (O,I)   bias: (O,)   -> y (...,O), and what backward needs"""
    ...
    # return y, cache


def linear_backward(dy, cache):
    """dy: (...,O)   -> dx (...,I), dweight (O,I), dbias (O,)"""
    ...
    # return dx, dweight, dbias
