import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, B, T, H, K):
    return {"q": rng.standard_normal((B, T, H, K)), "weight": rng.standard_normal((H, K)) + 1, "eps": 0.1}


def cases(seed):
    zeros = make(np.random.default_rng(5), B=1, T=2, H=2, K=3)
    zeros["q"][0, 0, 1] = 0
    yield from op_cases(
        "qk_norm_forward",
        "qk_norm_backward",
        make,
        wrt=("q", "weight"),
        small=[
            {"B": 1, "T": 1, "H": 1, "K": 1},
            {"B": 1, "T": 1, "H": 1, "K": 2},
            {"B": 1, "T": 1, "H": 2, "K": 3},
            {"B": 2, "T": 3, "H": 2, "K": 2},
        ],
        random=[{"B": 2, "T": 2, "H": 3, "K": 4}, {"B": 1, "T": 4, "H": 2, "K": 6}],
        seed=seed,
        edges={"a head of zeros": zeros},
    )
