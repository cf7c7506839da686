# stage: smallest | says: The share is taken for each row. It is one number for the whole tensor.
import numpy as np


def cautious(step, gradient):
    agrees = step * gradient > 0
    share = np.maximum(np.mean(agrees, axis=-1, keepdims=True), 1e-3)
    return np.where(agrees, step, 0) / share
