# stage: smallest | says: What is permuted are the rows of W, its outputs; the columns belong to the stream.
import numpy as np


def stacked_rows(weight, H, G, K):
    order = np.arange(K).reshape(2, K // 2).T.ravel()  # 0, K/2, 1, K/2 + 1, ...
    columns = weight.shape[1]
    both = np.arange(columns).reshape(2, columns // 2).T.ravel()
    result = weight.copy()
    result[: (H + G) * K] = result[: (H + G) * K][:, both]
    return result
