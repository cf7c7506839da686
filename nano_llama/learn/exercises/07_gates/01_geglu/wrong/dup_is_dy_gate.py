# stage: gradcheck | says: What multiplies up is gelu(gate), not gate.
import numpy as np


def geglu_forward(gate, up):
    root = float(np.sqrt(2 / np.pi))
    t = np.tanh(root * (gate + 0.044715 * gate**3))
    return 0.5 * gate * (1 + t) * up, (gate, up, t, root)


def geglu_backward(dy, cache):
    gate, up, t, root = cache
    slope = root * (1 + 3 * 0.044715 * gate**2)  # of what stands in the tanh
    dgate = dy * up * (0.5 * (1 + t) + 0.5 * gate * (1 - t * t) * slope)
    return dgate, dy * gate
