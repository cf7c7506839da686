# stage: smallest | says: The denominator lacks its correction.
import numpy as np


def amsgrad(theta, gradients, lr, b1, b2, eps):
    m, v, largest = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    path = []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        largest = np.maximum(largest, v)
        m_hat, v_hat = m / (1 - b1**t), largest
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + eps)
        path.append(theta)
    return np.array(path)
