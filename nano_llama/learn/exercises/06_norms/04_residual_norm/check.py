import numpy as np

from nano_llama.learn.checks import memory_case, op_cases

N, D = 400, 250
UNIT = N * D * 8


def make(rng, N, D):
    x, delta = rng.standard_normal((2, N, D))
    return {"x": x, "delta": delta, "weight": rng.standard_normal(D) + 1, "eps": 0.1}


def cases(seed):
    zeros = make(np.random.default_rng(5), N=2, D=3)
    zeros["delta"][1] = -zeros["x"][1]
    yield from op_cases(
        "residual_norm_forward",
        "residual_norm_backward",
        make,
        wrt=("x", "delta", "weight"),
        out="(h, y)",
        small=[{"N": 1, "D": 1}, {"N": 1, "D": 2}, {"N": 2, "D": 3}],
        random=[{"N": 5, "D": 4}, {"N": 3, "D": 7}],
        seed=seed,
        edges={"a sum of zeros": zeros},
    )
    inputs = make(np.random.default_rng(6), N, D)
    dh, dy = np.random.default_rng(7).standard_normal((2, N, D))

    def forward(module, nothing):
        return module.residual_norm_forward(**inputs)

    def prepare(module):
        return module.residual_norm_forward(**inputs)[1]

    def backward(module, cache):
        return module.residual_norm_backward(dh, dy, cache)

    yield memory_case("forward", lambda module: None, forward, 2, UNIT, "arrays of shape (N,D)")
    yield memory_case("backward", prepare, backward, 2, UNIT, "arrays of shape (N,D)")
