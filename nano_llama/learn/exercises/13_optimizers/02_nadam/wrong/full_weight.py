# stage: smallest | says: The gradient enters with the full weight, as in momentum that is a sum. Here means are kept: its weight is 1 - b1.
import numpy as np


def nadam(theta, gradients, lr, b1, b2, eps):
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    path = []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        ahead = b1 * m + g
        ahead = ahead / (1 - b1 ** (t + 1))
        theta = theta - lr * ahead / (np.sqrt(v / (1 - b2**t)) + eps)
        path.append(theta)
    return np.array(path)
