import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, N, V):
    targets = rng.integers(0, V, N)
    if N > 2:
        targets[rng.integers(N)] = -100
    return {"x": rng.standard_normal((N, V)), "targets": targets, "s": 0.2}


def cases(seed):
    inputs = make(np.random.default_rng(5), N=3, V=4)
    yield from op_cases(
        "smoothed_forward",
        "smoothed_backward",
        make,
        wrt=("x",),
        out="loss",
        small=[{"N": 1, "V": 2}, {"N": 2, "V": 2}, {"N": 3, "V": 3}],
        random=[{"N": 6, "V": 5}, {"N": 4, "V": 9}],
        seed=seed,
        edges={
            "no row counts": inputs | {"targets": np.full(3, -100)},
            "logits of 1,000": inputs | {"x": 1000 * inputs["x"]},
            "logits of -1,000": inputs | {"x": inputs["x"] - 1000},
            "s = 0": inputs | {"s": 0.0},
        },
    )
