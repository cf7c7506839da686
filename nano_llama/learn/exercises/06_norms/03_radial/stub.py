import numpy as np


def radial(x, weight, eps, dy):
    """x, dy: (...,D)   weight: (D,)   eps: a number   -> x . dx of each row (...)"""
    ...
