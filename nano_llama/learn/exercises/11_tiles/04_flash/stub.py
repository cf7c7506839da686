import numpy as np


def flash_forward(q, k, v, block):
    """q, k, v: (T,K), causal   block: queries, and keys, in a tile   -> out (T,K), and what backward needs"""
    ...
    # return out, cache


def flash_backward(dout, cache):
    """dout: (T,K)   -> dq (T,K), dk (T,K), dv (T,K)"""
    ...
    # return dq, dk, dv
