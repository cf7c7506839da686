import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, S, K, block):
    return {"scores": np.sort(rng.standard_normal(S) * 2), "values": rng.standard_normal((S, K)), "block": block}


def mixed(rng, S, K, block):
    return {"scores": rng.standard_normal(S) * 2000, "values": rng.standard_normal((S, K)), "block": block}


def at_once(scores, values, block):
    allowed = np.isfinite(scores)
    if not allowed.any():
        return np.zeros(values.shape[1]), -np.inf
    top = scores[allowed].max()
    e = np.exp(scores[allowed] - top)
    return e @ values[allowed] / e.sum(), float(top + np.log(e.sum()))


def forbidding(*places):
    inputs = make(np.random.default_rng(3), S=6, K=2, block=2)
    inputs["scores"] = np.round(inputs["scores"], 1)
    inputs["scores"][list(places)] = -np.inf
    return inputs


def cases(seed):
    yield from function_cases(
        "online",
        make,
        small=[
            {"S": 2, "K": 1, "block": 1},
            {"S": 4, "K": 2, "block": 2},
            {"S": 5, "K": 2, "block": 2},
        ],
        random=[{"S": 12, "K": 3, "block": 4}, {"S": 9, "K": 2, "block": 20}],
        seed=seed,
        expected=at_once,
        edges={
            "the first tile is forbidden": forbidding(0, 1),
            "the first two tiles": forbidding(0, 1, 2, 3),
            "a tile in the middle": forbidding(2, 3),
            "everything is forbidden": forbidding(*range(6)),
            "large scores, in any order": mixed(np.random.default_rng(4), S=10, K=2, block=3),
        },
    )
