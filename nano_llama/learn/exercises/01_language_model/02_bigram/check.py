from collections import Counter
from itertools import pairwise

import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, documents, V, length):
    lists = [
        [int(token) for token in rng.integers(0, V, rng.integers(max(length - 2, 1), length + 1))]
        for _ in range(documents)
    ]
    return {"documents": lists, "V": V}


def by_counter(documents, V):
    pairs = Counter(pair for text in documents for pair in pairwise(text))
    firsts = Counter(token for text in documents for token in text[:-1])
    return np.array([[pairs[a, b] / firsts[a] if firsts[a] else 1 / V for b in range(V)] for a in range(V)])


def cases(seed):
    yield from function_cases(
        "bigram",
        make,
        small=[
            {"documents": 1, "V": 1, "length": 2},
            {"documents": 1, "V": 2, "length": 4},
            {"documents": 1, "V": 3, "length": 2},
            {"documents": 1, "V": 2, "length": 9},
            {"documents": 2, "V": 2, "length": 4},
            {"documents": 3, "V": 3, "length": 5},
        ],
        random=[{"documents": 4, "V": 5, "length": 12}, {"documents": 9, "V": 3, "length": 20}],
        seed=seed,
        expected=by_counter,
        edges={
            "no documents": {"documents": [], "V": 3},
            "an empty document": {"documents": [[], [0, 1], []], "V": 2},
            "documents of one token": {"documents": [[0], [1]], "V": 2},
            "repeats": {"documents": [[0, 0, 0, 1]], "V": 2},
        },
    )
