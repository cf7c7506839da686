import numpy as np


def grid_rope_forward(x, frequencies):
    """x: (rows,columns,K)   frequencies: (K/4,)   -> y (rows,columns,K), and what backward needs"""
    ...
    # return y, cache


def grid_rope_backward(dy, cache):
    """dy: (rows,columns,K)   -> dx (rows,columns,K)"""
    ...
    # return dx
