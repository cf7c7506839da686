# stage: smallest | says: Keys are turned as well as queries.
import numpy as np


def stacked_rows(weight, H, G, K):
    order = np.arange(K).reshape(2, K // 2).T.ravel()  # 0, K/2, 1, K/2 + 1, ...
    heads = weight.reshape(H + 2 * G, K, -1).copy()
    heads[:H] = heads[:H, order]
    return heads.reshape(weight.shape)
