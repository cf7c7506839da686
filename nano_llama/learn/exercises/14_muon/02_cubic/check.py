import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, rows, columns, digits):
    """Well conditioned: singular values between 0.3 and 3."""
    p, _, q = np.linalg.svd(rng.standard_normal((rows, columns)), full_matrices=False)
    return {"matrix": np.round(p * rng.uniform(0.3, 3, min(rows, columns)) @ q, 2), "tolerance": 10.0**-digits}


def cases(seed):
    rng = np.random.default_rng(1)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    yield from function_cases(
        "orthogonal",
        make,
        small=[
            {"rows": 2, "columns": 2, "digits": 3},
            {"rows": 2, "columns": 3, "digits": 3},
            {"rows": 3, "columns": 2, "digits": 3},
        ],
        random=[
            {"rows": 5, "columns": 5, "digits": 6},
            {"rows": 4, "columns": 9, "digits": 9},
            {"rows": 8, "columns": 3, "digits": 2},
        ],
        seed=seed,
        edges={
            "just within": {"matrix": np.eye(4), "tolerance": 0.75},
            "one row": {"matrix": np.array([[3.0, 0.0, 4.0]]), "tolerance": 1e-6},
            "one column": {"matrix": np.array([[3.0], [4.0]]), "tolerance": 1e-6},
            "a rotation": {"matrix": turn, "tolerance": 1e-6},
            "tiny": {"matrix": 1e-12 * np.round(rng.standard_normal((2, 4)), 1), "tolerance": 1e-4},
            "large": {"matrix": 1e9 * np.round(rng.standard_normal((3, 3)), 1), "tolerance": 1e-4},
        },
    )
