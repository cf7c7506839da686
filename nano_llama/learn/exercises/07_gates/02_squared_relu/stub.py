import numpy as np


def squared_relu_forward(x, weight):
    """x: (rows,D)   weight: (F,D)   -> y (rows,F), and what backward needs"""
    ...
    # return y, cache


def squared_relu_backward(dy, cache):
    """dy: (rows,F)   -> dx (rows,D), dweight (F,D)"""
    ...
    # return dx, dweight
