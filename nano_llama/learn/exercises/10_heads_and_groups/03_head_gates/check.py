import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, T, H, K, D):
    return {
        "o": rng.standard_normal((T, H, K)),
        "weight": rng.standard_normal((D, H * K)),
        "gate": rng.uniform(0.5, 2, H),
    }


def cases(seed):
    closed = make(np.random.default_rng(3), T=2, H=3, K=2, D=4)
    closed["gate"][1] = 0
    yield from op_cases(
        "gated_heads_forward",
        "gated_heads_backward",
        make,
        wrt=("o", "weight", "gate"),
        small=[
            {"T": 1, "H": 1, "K": 1, "D": 1},
            {"T": 1, "H": 2, "K": 3, "D": 2},
            {"T": 2, "H": 3, "K": 2, "D": 3},
        ],
        random=[{"T": 4, "H": 3, "K": 4, "D": 5}, {"T": 3, "H": 2, "K": 5, "D": 6}],
        seed=seed,
        edges={"a closed head": closed},
    )
