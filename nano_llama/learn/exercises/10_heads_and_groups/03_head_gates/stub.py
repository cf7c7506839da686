import numpy as np


def gated_heads_forward(o, weight, gate):
    """o: (T,H,K), the answers of the heads   weight: (D,H*K)   gate: (H,)   -> y (T,D), and what backward needs"""
    ...
    # return y, cache


def gated_heads_backward(dy, cache):
    """dy: (T,D)   -> do (T,H,K), dweight (D,H*K), dgate (H,)"""
    ...
    # return do, dweight, dgate
