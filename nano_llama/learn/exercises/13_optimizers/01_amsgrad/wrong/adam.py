# stage: smallest | says: This is Adam itself: the denominator still forgets, and a rare large gradient with it.
import numpy as np


def amsgrad(theta, gradients, lr, b1, b2, eps):
    m, v, largest = np.zeros_like(theta), np.zeros_like(theta), np.zeros_like(theta)
    path = []
    for t, g in enumerate(gradients, start=1):
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        largest = v
        m_hat, v_hat = m / (1 - b1**t), largest / (1 - b2**t)
        theta = theta - lr * m_hat / (np.sqrt(v_hat) + eps)
        path.append(theta)
    return np.array(path)
