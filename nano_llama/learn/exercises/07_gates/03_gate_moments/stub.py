import numpy as np


def gate_moments(spread):
    """spread > 0: a number   -> mean, mean square and variance of silu(spread z), z standard normal: three floats"""
    ...
    # return mean, square, variance
