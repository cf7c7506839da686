# stage: smallest | says: The mean of the heads was asked for; their sum makes scores too large.
import numpy as np


def share_heads(weight, H, G, K):
    heads = weight.reshape(G, H // G, K, -1)  # (G,R,K,D): a group's heads are neighbours
    return heads.sum(axis=1).reshape(G * K, -1)
