# stage: smallest | says: n_a counts the tokens that were seen behind a, not all V.
import numpy as np


def discounted(counts, q, d):
    totals = counts.sum(axis=1, keepdims=True)
    taken = d * len(q)
    left = (np.maximum(counts - d, 0) + taken * q) / np.maximum(totals, 1)
    return np.where(totals > 0, left, q)
