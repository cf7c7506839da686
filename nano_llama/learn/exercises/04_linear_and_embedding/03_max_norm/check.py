import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, N, V, D):
    E = rng.standard_normal((V, D))
    E /= np.sqrt(np.sum(E * E, axis=-1, keepdims=True))
    E *= np.where(np.arange(V) % 2, 0.5, 2.0)[:, None]  # every other row is too long
    return {"tokens": rng.integers(0, V, N), "E": E, "c": 1.2}


def cases(seed):
    zero = make(np.random.default_rng(5), N=4, V=3, D=2)
    zero["E"][1] = 0
    zero["tokens"] = np.array([1, 0, 1, 2])
    yield from op_cases(
        "max_norm_forward",
        "max_norm_backward",
        make,
        wrt=("E",),
        small=[{"N": 1, "V": 1, "D": 1}, {"N": 1, "V": 1, "D": 2}, {"N": 2, "V": 2, "D": 2}, {"N": 3, "V": 2, "D": 3}],
        random=[{"N": 6, "V": 4, "D": 3}, {"N": 5, "V": 8, "D": 4}],
        seed=seed,
        edges={"a row of zeros": zero, "c = 0.3": make(np.random.default_rng(6), N=4, V=4, D=2) | {"c": 0.3}},
    )
