# stage: smallest | says: The planes lie within a head: permute head by head.
import numpy as np


def stacked_rows(weight, H, G, K):
    n = (H + G) * K
    order = np.arange(n).reshape(2, n // 2).T.ravel()
    return np.concatenate((weight[:n][order], weight[n:]))
