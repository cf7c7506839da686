# stage: random | says: Where step or gradient is zero, nothing agrees: such entries do not count in the share.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient >= 0
    share = np.mean(agrees)
    return np.where(agrees, step, 0) / max(share, 1e-3)
