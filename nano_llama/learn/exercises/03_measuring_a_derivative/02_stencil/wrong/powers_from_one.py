# stage: smallest | says: The powers begin at 0: the formula must hold for f = 1 too, where the weights add up to 0 (or 1 for m = 0).
import math

import numpy as np


def stencil(offsets, order):
    powers = offsets ** np.arange(1, len(offsets) + 1)[:, None]  # row k: the k-th powers
    wanted = np.zeros(len(offsets))
    wanted[order] = math.factorial(order)
    return np.linalg.lstsq(powers, wanted)[0]
