import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, T, K):
    return {**{name: rng.standard_normal((T, K)) for name in "qkv"}, "slope": np.array(rng.uniform(0.2, 0.9))}


def cases(seed):
    level = make(np.random.default_rng(6), T=4, K=3)
    level["slope"] = np.array(0.0)
    yield from op_cases(
        "sloped_forward",
        "sloped_backward",
        make,
        wrt=("q", "k", "v", "slope"),
        small=[{"T": 2, "K": 2}, {"T": 3, "K": 2}, {"T": 4, "K": 4}],
        random=[{"T": 6, "K": 4}, {"T": 9, "K": 3}],
        seed=seed,
        out="out",
        edges={"no slope": level},
    )
