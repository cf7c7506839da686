# stage: smallest | says: The system is transposed: each equation holds one power of all offsets.
import math

import numpy as np


def stencil(offsets, order):
    powers = offsets ** np.arange(len(offsets))[:, None]  # row k: the k-th powers
    wanted = np.zeros(len(offsets))
    wanted[order] = math.factorial(order)
    return np.linalg.solve(powers.T, wanted)
