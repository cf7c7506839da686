# stage: edge | says: A row without counts is 0/0 or 0; it is to be q.
import numpy as np


def discounted(counts, q, d):
    totals = counts.sum(axis=1, keepdims=True)
    taken = d * (counts > 0).sum(axis=1, keepdims=True)
    left = (np.maximum(counts - d, 0.0) + taken * q) / np.maximum(totals, 1)
    return left
