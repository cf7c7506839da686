# stage: edge | says: With no entry in agreement the share is zero. It is not less than a thousandth.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient > 0
    share = np.mean(agrees)
    return np.where(agrees, step, 0) / share
