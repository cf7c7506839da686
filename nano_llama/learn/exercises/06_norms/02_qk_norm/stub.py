import numpy as np


def qk_norm_forward(q, weight, eps):
    """q: (B,T,H,K)   weight: (H,K)   eps: a number   -> y (B,T,H,K), and what backward needs"""
    ...
    # return y, cache


def qk_norm_backward(dy, cache):
    """dy: (B,T,H,K)   -> dq (B,T,H,K), dweight (H,K)"""
    ...
    # return dq, dweight
