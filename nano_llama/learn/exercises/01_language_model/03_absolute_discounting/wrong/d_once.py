# stage: smallest | says: d is taken from every count that is not 0: a row loses d times the number of its different successors.
import numpy as np


def discounted(counts, q, d):
    totals = counts.sum(axis=1, keepdims=True)
    taken = d
    left = (np.maximum(counts - d, 0) + taken * q) / np.maximum(totals, 1)
    return np.where(totals > 0, left, q)
