import numpy as np


def partial_rope_forward(x, cos, sin):
    """x: (B,H,T,K)   cos, sin: (T,n), 2 n <= K   -> y (B,H,T,K), and what backward needs"""
    ...
    # return y, cache


def partial_rope_backward(dy, cache):
    """dy: (B,H,T,K)   -> dx (B,H,T,K)"""
    ...
    # return dx
