import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, n, letters, merges):
    """Merges of random neighbours, as training would find them in a text of a few letters."""
    found, ids = [], [97 + int(i) for i in rng.integers(0, letters, 200)]
    while len(found) < merges:
        i = int(rng.integers(len(ids) - 1))
        found.append((ids[i], ids[i + 1]))
        ids = replaced(ids, found[-1], 255 + len(found))
    return {"data": bytes(97 + int(i) for i in rng.integers(0, letters, n)), "merges": found}


def replaced(ids, pair, token):
    for i in range(len(ids) - 1):
        if (ids[i], ids[i + 1]) == pair:
            return [*ids[:i], token, *replaced(ids[i + 2 :], pair, token)]
    return list(ids)


def merge_by_merge(data, merges):
    """One pass for each merge: none makes a pair that an earlier one would merge."""
    ids = list(data)
    for rank, pair in enumerate(merges):
        ids = replaced(ids, pair, 256 + rank)
    return ids


def cases(seed):
    some = make(np.random.default_rng(5), n=5, letters=2, merges=4)
    yield from function_cases(
        "encode",
        make,
        small=[
            {"n": 2, "letters": 1, "merges": 1},
            {"n": 3, "letters": 1, "merges": 1},
            {"n": 4, "letters": 1, "merges": 2},
            {"n": 7, "letters": 2, "merges": 4},
            {"n": 12, "letters": 2, "merges": 5},
        ],
        random=[
            {"n": 40, "letters": 2, "merges": 12},
            {"n": 60, "letters": 3, "merges": 20},
            {"n": 40, "letters": 2, "merges": 9},
        ],
        seed=seed,
        expected=merge_by_merge,
        edges={
            "no bytes": some | {"data": b""},
            "one byte": some | {"data": b"a"},
            "no merges": {"data": "né".encode(), "merges": []},
            "nothing to merge": some | {"data": b"xyz"},
            "a merge of the last two": {"data": b"xab", "merges": [(97, 98)]},
            "left to right, and the lowest number first": {"data": b"abcab", "merges": [(98, 99), (97, 98), (97, 256)]},
        },
    )
