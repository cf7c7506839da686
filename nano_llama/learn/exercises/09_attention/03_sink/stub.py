import numpy as np


def sink_forward(scores, v, sink):
    """scores: (T,S)   v: (S,K)   sink: a number   -> out (T,K), and what backward needs"""
    ...
    # return out, cache


def sink_backward(dout, cache):
    """dout: (T,K)   -> dscores (T,S), dv (S,K), dsink a number"""
    ...
    # return dscores, dv, dsink
