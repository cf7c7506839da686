import numpy as np


def combine(losses, grads, counts):
    """losses: (M,)   grads: M dicts of arrays   counts: (M,)   -> loss (a number), gradients (a dict of arrays)"""
    ...
    # return loss, gradients
