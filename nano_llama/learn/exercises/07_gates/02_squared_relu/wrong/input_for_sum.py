# stage: gradcheck | says: dx is a sum over the F outputs, each through its row of weight; the squared output was taken for the slope.
import numpy as np


def squared_relu_forward(x, weight):
    hidden = np.maximum(x @ weight.T, 0)  # (rows,F)
    return hidden * hidden, (x, weight, hidden)


def squared_relu_backward(dy, cache):
    x, weight, hidden = cache
    dhidden = 2 * dy * hidden * hidden  # zero wherever the switch is shut
    return dhidden @ weight, dhidden.T @ x
