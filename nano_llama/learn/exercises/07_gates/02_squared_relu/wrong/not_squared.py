# stage: smallest | says: The output is squared; that is plain ReLU.
import numpy as np


def squared_relu_forward(x, weight):
    hidden = np.maximum(x @ weight.T, 0)  # (rows,F)
    return hidden, (x, weight, hidden)


def squared_relu_backward(dy, cache):
    x, weight, hidden = cache
    dhidden = 2 * dy * hidden  # zero wherever the switch is shut
    return dhidden @ weight, dhidden.T @ x
