import numpy as np

from nano_llama.learn.checks import function_cases

LENGTHS = ("frobenius", "entries", "columns", "spectral")


def make(rng, rows, columns, which):
    return {"g": rng.standard_normal((rows, columns)) + 0.05, "length": LENGTHS[which]}


def cases(seed):
    rng = np.random.default_rng(5)
    empty = np.round(rng.standard_normal((3, 3)), 1)
    empty[:, 1] = 0
    yield from function_cases(
        "steepest",
        make,
        small=[
            *({"rows": 2, "columns": 2, "which": which} for which in range(4)),
            *({"rows": 2, "columns": 3, "which": which} for which in range(4)),
        ],
        random=[{"rows": rows, "columns": 4, "which": which} for rows in (3, 6) for which in range(4)],
        seed=seed,
        edges={
            "a column of zeros": {"g": empty, "length": "columns"},
            "an entry of zero": {"g": empty, "length": "entries"},
            "tiny": {"g": 1e-30 * np.round(rng.standard_normal((3, 4)), 1), "length": "spectral"},
        },
    )
