# stage: random | says: The right side stands at the highest power; it belongs at the power m.
import math

import numpy as np


def stencil(offsets, order):
    powers = offsets ** np.arange(len(offsets))[:, None]  # row k: the k-th powers
    wanted = np.zeros(len(offsets))
    wanted[-1] = math.factorial(order)
    return np.linalg.solve(powers, wanted)
