# stage: smallest | says: The corrections lack the power t.
import numpy as np


def amsgrad(theta, gradients, lr, b1, b2, eps):
    m, v, largest = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    path = []
    for g in gradients:
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        largest = np.maximum(largest, v)
        m_hat, v_hat = m / (1 - b1), largest / (1 - b2)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + eps)
        path.append(theta)
    return np.array(path)
