import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, N, I, O, R):
    x, W = rng.standard_normal((N, I)), rng.standard_normal((O, I))
    return {"x": x, "W": W, "A": rng.standard_normal((R, I)), "B": rng.standard_normal((O, R)), "s": 0.5}


def cases(seed):
    fresh = make(np.random.default_rng(5), N=3, I=4, O=3, R=2)
    fresh["B"] = 0 * fresh["B"]
    yield from op_cases(
        "low_rank_forward",
        "low_rank_backward",
        make,
        wrt=("x", "A", "B"),
        small=[
            {"N": 1, "I": 1, "O": 1, "R": 1},
            {"N": 1, "I": 2, "O": 1, "R": 1},
            {"N": 2, "I": 2, "O": 2, "R": 1},
            {"N": 2, "I": 3, "O": 4, "R": 2},
        ],
        random=[{"N": 5, "I": 4, "O": 3, "R": 2}, {"N": 2, "I": 3, "O": 5, "R": 4}],
        seed=seed,
        edges={"B is zero, as fine-tuning begins": fresh},
    )
