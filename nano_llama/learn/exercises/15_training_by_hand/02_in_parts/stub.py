import numpy as np


def gather(gradient, parts, limit):
    """gradient(part) -> loss (a number), grads (a dict of arrays), count (targets)   parts: a list   limit: a number

    -> loss (a number), grads (a dict of arrays), norm (a number, before clipping)
    """
    ...
    # return loss, grads, norm
