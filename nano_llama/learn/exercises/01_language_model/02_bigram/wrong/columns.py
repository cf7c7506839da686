# stage: smallest | says: The columns add up to 1; a row holds the probabilities of what comes next.
from itertools import pairwise

import numpy as np


def bigram(documents, V):
    counts = np.zeros((V, V))
    for document in documents:
        for a, b in pairwise(document):
            counts[a, b] += 1
    totals = counts.sum(axis=0)
    return np.where(counts.sum(axis=1, keepdims=True) > 0, counts / np.maximum(totals, 1), 1 / V)
