from itertools import pairwise

from nano_llama.learn.checks import function_cases


def make(rng, n, letters):
    return {"ids": [int(i) for i in rng.integers(0, letters, n)]}


def by_merging(ids):
    """For each pair by itself: merge it from left to right, and count."""
    counts = {}
    for pair in pairwise(ids):
        i = counts[pair] = 0
        while i + 1 < len(ids):
            here = (ids[i], ids[i + 1]) == pair
            counts[pair] += here
            i += 2 if here else 1
    return counts


def cases(seed):
    yield from function_cases(
        "count_pairs",
        make,
        small=[
            {"n": 2, "letters": 9},
            {"n": 3, "letters": 1},
            {"n": 4, "letters": 1},
            {"n": 4, "letters": 2},
            {"n": 6, "letters": 2},
            {"n": 5, "letters": 3},
        ],
        random=[{"n": 30, "letters": 2}, {"n": 30, "letters": 3}, {"n": 60, "letters": 2}],
        seed=seed,
        expected=by_merging,
        edges={"no tokens": {"ids": []}, "one token": {"ids": [7]}, "two runs": {"ids": [1, 1, 1, 2, 1, 1, 1, 1, 1]}},
    )
