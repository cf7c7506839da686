# stage: smallest | says: A row without counts is to be uniform: it must add up to 1 as well.
from itertools import pairwise

import numpy as np


def bigram(documents, V):
    counts = np.zeros((V, V))
    for document in documents:
        for a, b in pairwise(document):
            counts[a, b] += 1
    totals = counts.sum(axis=1, keepdims=True)
    return counts / np.maximum(totals, 1)
