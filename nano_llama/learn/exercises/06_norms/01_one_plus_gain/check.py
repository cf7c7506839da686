import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, **sizes):
    x = rng.standard_normal(tuple(sizes.values()))
    return {"x": x, "weight": 0.5 * rng.standard_normal(x.shape[-1]), "eps": 0.1}


def cases(seed):
    zeros = make(np.random.default_rng(5), N=2, D=3)
    zeros["x"][1] = 0
    yield from op_cases(
        "norm_forward",
        "norm_backward",
        make,
        wrt=("x", "weight"),
        small=[{"N": 1, "D": 1}, {"N": 1, "D": 2}, {"N": 2, "D": 2}, {"B": 2, "T": 2, "D": 3}],
        random=[{"N": 5, "D": 4}, {"D": 6}, {"B": 2, "T": 3, "D": 5}],
        seed=seed,
        edges={"a row of zeros": zeros},
    )
