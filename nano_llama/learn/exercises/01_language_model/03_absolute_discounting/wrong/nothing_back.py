# stage: smallest | says: What was taken is not handed out again, so the rows add up to less than 1.
import numpy as np


def discounted(counts, q, d):
    totals = counts.sum(axis=1, keepdims=True)
    taken = d * (counts > 0).sum(axis=1, keepdims=True)
    left = (np.maximum(counts - d, 0)) / np.maximum(totals, 1)
    return np.where(totals > 0, left, q)
