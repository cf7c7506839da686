# stage: smallest | says: A pair that occurs several times counts several times.
from itertools import pairwise

import numpy as np


def bigram(documents, V):
    counts = np.zeros((V, V))
    for document in documents:
        for a, b in pairwise(document):
            counts[a, b] = 1
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), 1 / V)
