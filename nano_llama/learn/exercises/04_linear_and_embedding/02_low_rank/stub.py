import numpy as np


def low_rank_forward(x, W, A, B, s):
    """x: (N,I)   W: (O,I)   A: (R,I)   B: (O,R)   s: a number   -> y (N,O), and what backward needs"""
    ...
    # return y, cache


def low_rank_backward(dy, cache):
    """dy: (N,O)   -> dx (N,I), dA (R,I), dB (O,R)"""
    ...
    # return dx, dA, dB
