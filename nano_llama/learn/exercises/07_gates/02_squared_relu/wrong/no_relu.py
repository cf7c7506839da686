# stage: smallest | says: Negative sums are stopped before the square: here they come out positive.
import numpy as np


def squared_relu_forward(x, weight):
    hidden = x @ weight.T  # (rows,F)
    return hidden * hidden, (x, weight, hidden)


def squared_relu_backward(dy, cache):
    x, weight, hidden = cache
    dhidden = 2 * dy * hidden  # zero wherever the switch is shut
    return dhidden @ weight, dhidden.T @ x
