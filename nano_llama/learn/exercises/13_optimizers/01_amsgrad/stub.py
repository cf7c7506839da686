import numpy as np


def amsgrad(theta, gradients, lr, b1, b2, eps):
    """theta: (n,)   gradients: (T,n), one after the other   -> (T,n), the weights after each step"""
    ...
    # return np.array(path)
