import numpy as np


def capped_forward(x, targets, c):
    """x: (N,V)   targets: (N,) integers in [0,V)   c: a number   -> loss (a number), and what backward needs"""
    ...
    # return loss, cache


def capped_backward(dloss, cache):
    """dloss: a number   -> dx (N,V)"""
    ...
    # return dx
