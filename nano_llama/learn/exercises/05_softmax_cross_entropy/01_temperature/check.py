import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, **sizes):
    return {"x": rng.standard_normal(tuple(sizes.values())), "tau": np.array(0.7)}


def cases(seed):
    x = np.random.default_rng(5).standard_normal((2, 3))
    yield from op_cases(
        "softmax_forward",
        "softmax_backward",
        make,
        wrt=("x", "tau"),
        small=[{"V": 2}, {"N": 1, "V": 2}, {"N": 2, "V": 2}, {"N": 2, "V": 3}],
        random=[{"V": 5}, {"N": 4, "V": 6}, {"B": 2, "T": 3, "V": 4}],
        seed=seed,
        edges={
            "scores of 1,000": {"x": 1000 * x, "tau": np.array(0.5)},
            "tau = 0.01": {"x": 10 * x, "tau": np.array(0.01)},
        },
    )
