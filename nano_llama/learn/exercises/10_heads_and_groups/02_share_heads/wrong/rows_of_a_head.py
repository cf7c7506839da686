# stage: smallest | says: The mean runs over heads; row i of a head has nothing to do with row i + 1.
import numpy as np


def share_heads(weight, H, G, K):
    return weight.reshape(G * K, H // G, -1).mean(axis=1)
