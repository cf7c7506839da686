# stage: smallest | says: This is PyTorch's form, which corrects the two parts one by one. Here the mean has one correction, by the sum of all its weights.
import numpy as np


def nadam(theta, gradients, lr, b1, b2, eps):
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    path = []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
        theta = theta - lr * ahead / (np.sqrt(v / (1 - b2**t)) + eps)
        path.append(theta)
    return np.array(path)
