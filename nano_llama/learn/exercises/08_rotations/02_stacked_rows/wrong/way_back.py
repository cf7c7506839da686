# stage: smallest | says: That is the way back, from neighbours to halves.
import numpy as np


def stacked_rows(weight, H, G, K):
    order = np.arange(K).reshape(K // 2, 2).T.ravel()  # 0, K/2, 1, K/2 + 1, ...
    heads = weight.reshape(H + 2 * G, K, -1).copy()
    heads[: H + G] = heads[: H + G, order]
    return heads.reshape(weight.shape)
