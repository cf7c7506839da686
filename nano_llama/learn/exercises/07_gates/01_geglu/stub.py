import numpy as np


def geglu_forward(gate, up):
    """gate, up: (rows,F)   -> y (rows,F), and what backward needs"""
    ...
    # return y, cache


def geglu_backward(dy, cache):
    """dy: (rows,F)   -> dgate (rows,F), dup (rows,F)"""
    ...
    # return dgate, dup
