# stage: smallest | says: You keep the entries where step and gradient disagree. The step is subtracted, so it goes downhill where the signs are equal.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient < 0
    share = np.mean(agrees)
    return np.where(agrees, step, 0) / max(share, 1e-3)
