import numpy as np


def sloped_forward(q, k, v, slope):
    """q, k, v: (T,K)   slope: a number   -> out (T,K), and what backward needs"""
    ...
    # return out, cache


def sloped_backward(dout, cache):
    """dout: (T,K)   -> dq (T,K), dk (T,K), dv (T,K), dslope a number"""
    ...
    # return dq, dk, dv, dslope
