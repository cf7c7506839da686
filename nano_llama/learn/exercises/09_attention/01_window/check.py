import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, queries, keys, window):
    return {"queries": queries, "keys": keys, "window": window}


def one_by_one(queries, keys, window):
    mask = np.zeros((queries, keys), bool)
    for row in range(queries):
        here = keys - queries + row
        for key in range(max(0, here - window + 1), here + 1):
            mask[row, key] = True
    return mask


def cases(seed):
    yield from function_cases(
        "window_mask",
        make,
        small=[
            {"queries": 3, "keys": 3, "window": 2},
            {"queries": 2, "keys": 4, "window": 2},
            {"queries": 5, "keys": 5, "window": 3},
        ],
        random=[{"queries": 7, "keys": 12, "window": 4}, {"queries": 1, "keys": 9, "window": 5}],
        seed=seed,
        expected=one_by_one,
        edges={
            "only itself": {"queries": 4, "keys": 6, "window": 1},
            "wider than the text": {"queries": 4, "keys": 5, "window": 100},
        },
    )
