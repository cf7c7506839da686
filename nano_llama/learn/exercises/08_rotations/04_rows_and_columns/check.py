import numpy as np

from nano_llama.learn.checks import op_cases


def make(rng, rows, columns, n):
    return {"x": rng.standard_normal((rows, columns, 4 * n)), "frequencies": rng.uniform(0.2, 1.0, n)}


def cases(seed):
    yield from op_cases(
        "grid_rope_forward",
        "grid_rope_backward",
        make,
        wrt=("x",),
        small=[
            {"rows": 2, "columns": 2, "n": 1},
            {"rows": 2, "columns": 1, "n": 1},
            {"rows": 2, "columns": 3, "n": 2},
        ],
        random=[{"rows": 3, "columns": 5, "n": 2}, {"rows": 4, "columns": 2, "n": 3}],
        seed=seed,
        edges={"one cell": make(np.random.default_rng(4), rows=1, columns=1, n=2)},
    )
