import numpy as np


def online(scores, values, block):
    """scores: (S,), -inf where forbidden   values: (S,K)   block: keys in a tile   -> out (K,), lse a float"""
    ...
    # return out, lse
