# stage: smallest | says: The m-th derivative of x^m is m!, not 1.
import math

import numpy as np


def stencil(offsets, order):
    powers = offsets ** np.arange(len(offsets))[:, None]  # row k: the k-th powers
    wanted = np.zeros(len(offsets))
    wanted[order] = 1
    return np.linalg.solve(powers, wanted)
