# stage: smallest | says: Head h belongs to group h // R: a group's heads stand next to each other.
import numpy as np


def share_heads(weight, H, G, K):
    heads = weight.reshape(H // G, G, K, -1).swapaxes(0, 1)  # (G,R,K,D): a group's heads are neighbours
    return heads.mean(axis=1).reshape(G * K, -1)
