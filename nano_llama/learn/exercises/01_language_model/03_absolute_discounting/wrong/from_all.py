# stage: smallest | says: d was taken from counts of 0 too: a probability cannot fall below 0.
import numpy as np


def discounted(counts, q, d):
    totals = counts.sum(axis=1, keepdims=True)
    taken = d * (counts > 0).sum(axis=1, keepdims=True)
    left = (counts - d + taken * q) / np.maximum(totals, 1)
    return np.where(totals > 0, left, q)
