import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, rows, F):
    return {"gate": 2 * rng.standard_normal((rows, F)), "up": rng.standard_normal((rows, F)) + 0.3}


def cases(seed):
    far = {"gate": np.array([[-60.0, -9.0, 0.0, 9.0, 60.0]]), "up": np.array([[1.0, -2.0, 3.0, 0.5, -1.5]])}
    yield from op_cases(
        "geglu_forward",
        "geglu_backward",
        make,
        wrt=("gate", "up"),
        small=[{"rows": 1, "F": 1}, {"rows": 1, "F": 2}, {"rows": 2, "F": 3}],
        random=[{"rows": 4, "F": 7}, {"rows": 3, "F": 16}],
        seed=seed,
        edges={"far from zero": far},
    )
