import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, rows, D, F):
    return {"x": rng.standard_normal((rows, D)) + 0.2, "weight": rng.standard_normal((F, D))}


def cases(seed):
    shut = {"x": np.array([[1.0, 2.0], [-1.0, -2.0]]), "weight": np.array([[-1.0, -1.0], [0.5, 0.25], [0.0, 0.0]])}
    yield from op_cases(
        "squared_relu_forward",
        "squared_relu_backward",
        make,
        wrt=("x", "weight"),
        small=[{"rows": 1, "D": 1, "F": 1}, {"rows": 1, "D": 2, "F": 2}, {"rows": 2, "D": 3, "F": 4}],
        random=[{"rows": 5, "D": 4, "F": 6}, {"rows": 3, "D": 8, "F": 5}],
        seed=seed,
        edges={"switches that are shut": shut},
    )
