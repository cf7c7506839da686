import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, rounds):
    low = round(float(rng.uniform(0.01, 0.6)), 2)
    return {"l": low, "u": round(low + float(rng.uniform(0.3, 1.5)), 2), "rounds": rounds}


def errors(a, b, l, u):
    """p - 1 at both ends and, where it lies between them, at the top of the curve."""
    at = [l, u]
    if a * b < 0 and l < (top := (-a / (3 * b)) ** 0.5) < u:
        at.insert(1, top)
    return [a * s + b * s**3 - 1 for s in at]


def holds(pairs, l, u, rounds):
    """By the alternation itself, not by the reference's formulas."""
    if not isinstance(pairs, list) or len(pairs) != rounds:
        return f"It returned {pairs!r}; expected a list of {rounds} pairs."
    for number, pair in enumerate(pairs, 1):
        if np.shape(pair) != (2,):
            return f"Round {number} has {pair!r}; expected a pair (a, b)."
        found = errors(*pair, l, u)
        if len(found) < 3:
            return f"Round {number}: between {l:.6g} and {u:.6g} the curve has no top."
        if not np.allclose(np.array(found) * [-1, 1, -1], found[1], rtol=1e-7, atol=1e-11):
            said = ", ".join(f"{error:.6g}" for error in found)
            return f"Round {number}: for the interval [{l:.6g}, {u:.6g}] the errors p - 1 at l, top and u are {said}."
        l, u = 1 - found[1], 1 + found[1]
    return None


def cases(seed):
    yield from function_cases(
        "cubics",
        make,
        small=[{"rounds": 1}, {"rounds": 2}, {"rounds": 4}],
        random=[{"rounds": 1}, {"rounds": 3}, {"rounds": 5}],
        seed=seed,
        holds=holds,
        edges={
            "a wide interval": {"l": 0.001, "u": 1.0, "rounds": 8},
            "no rounds": {"l": 0.1, "u": 1.0, "rounds": 0},
            "all above one": {"l": 2.0, "u": 3.0, "rounds": 2},
        },
    )
