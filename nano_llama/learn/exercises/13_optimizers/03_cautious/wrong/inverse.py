# stage: smallest | says: You multiply by the share that is left. It should make up for those that are gone.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient > 0
    share = np.mean(agrees)
    return np.where(agrees, step, 0) * max(share, 1e-3)
