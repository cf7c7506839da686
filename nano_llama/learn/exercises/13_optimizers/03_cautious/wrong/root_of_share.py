# stage: smallest | says: You keep the length, with the root of the share. The rule is that the sum of the sizes is kept: divide by the share itself.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient > 0
    share = np.mean(agrees)
    return np.where(agrees, step, 0) / max(share, 1e-3) ** 0.5
