import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, S, K, size):
    return {
        "q": 2 * rng.standard_normal(K),
        "keys": rng.standard_normal((S, K)),
        "values": rng.standard_normal((S, K)),
        "size": size,
    }


def key_by_key(q, keys, values, size):
    scores = np.array([q @ key for key in keys]) / np.sqrt(len(q))
    belongs = np.arange(len(keys)) // size
    outs, lses = [], []
    for part in range(belongs[-1] + 1):
        here = scores[belongs == part]
        lse = np.logaddexp.reduce(here)
        outs.append(np.exp(here - lse) @ values[belongs == part])
        lses.append(lse)
    whole = np.exp(scores - np.logaddexp.reduce(scores)) @ values
    return np.array(outs), np.array(lses), whole


def cases(seed):
    large = make(np.random.default_rng(3), S=7, K=2, size=3)
    large["q"] = large["q"] * 1000
    yield from function_cases(
        "decode",
        make,
        small=[
            {"S": 3, "K": 2, "size": 2},
            {"S": 5, "K": 2, "size": 4},
            {"S": 7, "K": 3, "size": 3},
        ],
        random=[{"S": 20, "K": 4, "size": 8}, {"S": 16, "K": 3, "size": 4}],
        seed=seed,
        expected=key_by_key,
        edges={
            "one part": make(np.random.default_rng(4), S=3, K=2, size=8),
            "one key": make(np.random.default_rng(5), S=1, K=2, size=4),
            "large scores": large,
        },
    )
