import math

import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, n, order):
    return {"offsets": rng.choice(np.arange(-4.0, 5.0), n, replace=False), "order": order}


def known(*offsets, order):
    return {"offsets": np.array(offsets), "order": order}


def by_lagrange(offsets, order):
    """The m-th derivative at 0 of the polynomial that is 1 at one offset and 0 at the others."""
    weights = []
    for i, here in enumerate(offsets):
        others = np.delete(offsets, i)
        coefficients = np.polynomial.polynomial.polyfromroots(others) / np.prod(here - others)
        weights.append(coefficients[order] * math.factorial(order))
    return np.array(weights)


def cases(seed):
    yield from function_cases(
        "stencil",
        make,
        small=[{"n": 1, "order": 0}, {"n": 2, "order": 1}, {"n": 3, "order": 2}],
        random=[{"n": 4, "order": 1}, {"n": 5, "order": 2}, {"n": 5, "order": 3}],
        seed=seed,
        expected=by_lagrange,
        edges={
            "five points": known(-2.0, -1.0, 0.0, 1.0, 2.0, order=1),
            "one-sided": known(0.0, 1.0, 2.0, 3.0, order=1),
            "a value between the points": known(-1.5, 0.5, 1.0, order=0),
        },
        tolerance=1e-8,
    )
