# stage: gradcheck | says: That is ReLU's slope, 1 or 0; the square's is 2 h.
import numpy as np


def squared_relu_forward(x, weight):
    hidden = np.maximum(x @ weight.T, 0)  # (rows,F)
    return hidden * hidden, (x, weight, hidden)


def squared_relu_backward(dy, cache):
    x, weight, hidden = cache
    dhidden = 2 * dy * (hidden > 0)  # zero wherever the switch is shut
    return dhidden @ weight, dhidden.T @ x
