# stage: smallest | says: A pair was counted across the border of two documents.
from itertools import pairwise

import numpy as np


def bigram(documents, V):
    counts = np.zeros((V, V))
    text = [token for document in documents for token in document]
    for a, b in pairwise(text):
        counts[a, b] += 1
    totals = counts.sum(axis=1, keepdims=True)
    return np.where(totals > 0, counts / np.maximum(totals, 1), 1 / V)
