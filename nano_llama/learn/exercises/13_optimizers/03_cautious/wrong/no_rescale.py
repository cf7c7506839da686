# stage: smallest | says: What is left is not made larger: fewer entries move, and the step as a whole is shorter.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient > 0
    share = np.mean(agrees)
    return np.where(agrees, step, 0)
