import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, B, H, T, K, n):
    angles = rng.uniform(0.3, 1.2, (T, n))
    return {"x": rng.standard_normal((B, H, T, K)), "cos": np.cos(angles), "sin": np.sin(angles)}


def cases(seed):
    yield from op_cases(
        "partial_rope_forward",
        "partial_rope_backward",
        make,
        wrt=("x",),
        small=[
            {"B": 1, "H": 1, "T": 1, "K": 3, "n": 1},
            {"B": 1, "H": 1, "T": 2, "K": 6, "n": 2},
            {"B": 2, "H": 2, "T": 2, "K": 8, "n": 2},
        ],
        random=[{"B": 2, "H": 3, "T": 5, "K": 12, "n": 4}, {"B": 1, "H": 2, "T": 4, "K": 16, "n": 2}],
        seed=seed,
        edges={"the whole head": make(np.random.default_rng(3), B=1, H=2, T=3, K=8, n=4)},
    )
