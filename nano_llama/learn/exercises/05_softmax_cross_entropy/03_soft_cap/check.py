import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, N, V):
    return {"x": 2 * rng.standard_normal((N, V)), "targets": rng.integers(0, V, N), "c": 1.5}


def cases(seed):
    inputs = make(np.random.default_rng(5), N=3, V=4)
    yield from op_cases(
        "capped_forward",
        "capped_backward",
        make,
        wrt=("x",),
        out="loss",
        small=[{"N": 1, "V": 2}, {"N": 2, "V": 2}, {"N": 2, "V": 3}],
        random=[{"N": 5, "V": 6}, {"N": 3, "V": 9}],
        seed=seed,
        edges={
            "x = 1,000, c = 30": inputs | {"x": 1000 * inputs["x"], "c": 30.0},
            "c = 2,000": inputs | {"x": 1000 * inputs["x"], "c": 2000.0},
        },
    )
