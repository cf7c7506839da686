# stage: smallest | says: Each group has a head of its own; that is the mean of all heads, G times.
import numpy as np


def share_heads(weight, H, G, K):
    heads = weight.reshape(G, H // G, K, -1)  # (G,R,K,D): a group's heads are neighbours
    return np.concatenate([weight.reshape(H, K, -1).mean(axis=0)] * G)
