# stage: smallest | says: That takes the first head of each group and forgets the others.
import numpy as np


def share_heads(weight, H, G, K):
    heads = weight.reshape(G, H // G, K, -1)  # (G,R,K,D): a group's heads are neighbours
    return heads[:, 0].reshape(G * K, -1)
