# stage: shapes | says: The result has G K rows, one head after the other.
import numpy as np


def share_heads(weight, H, G, K):
    heads = weight.reshape(G, H // G, K, -1)  # (G,R,K,D): a group's heads are neighbours
    return heads.mean(axis=1).swapaxes(0, 1).reshape(K, -1)
