import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, T, S, K):
    return {
        "scores": rng.standard_normal((T, S)),
        "v": rng.standard_normal((S, K)),
        "sink": np.array(rng.uniform(0.5, 1.5)),
    }


def cases(seed):
    large = make(np.random.default_rng(7), T=2, S=3, K=2)
    large["scores"] = large["scores"] + 1000
    deep = make(np.random.default_rng(8), T=2, S=3, K=2)
    deep["sink"] = np.array(1000.0)
    yield from op_cases(
        "sink_forward",
        "sink_backward",
        make,
        wrt=("scores", "v", "sink"),
        small=[{"T": 1, "S": 1, "K": 1}, {"T": 1, "S": 2, "K": 2}, {"T": 2, "S": 3, "K": 2}],
        random=[{"T": 4, "S": 5, "K": 3}, {"T": 3, "S": 8, "K": 4}],
        seed=seed,
        out="out",
        edges={"large scores": large, "a deep sink": deep},
    )
