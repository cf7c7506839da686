import numpy as np

from nano_llama.learn.checks import function_cases


def cube(x):
    """sum of x^3"""
    return np.sum(x**3)


def product(x):
    """product of the entries"""
    return np.prod(x)


def waves(x):
    """sum of exp(x_i) sin(i + x_i)"""
    return np.sum(np.exp(x) * np.sin(np.arange(x.size).reshape(x.shape) + x))


def gradient_of(f, x):
    if f is cube:
        return 3 * x**2
    if f is product:
        return np.prod(x) / x
    angles = np.arange(x.size).reshape(x.shape) + x
    return np.exp(x) * (np.sin(angles) + np.cos(angles))


def make(rng, function, **sizes):
    return {"f": (cube, product, waves)[function], "x": rng.uniform(1, 3, tuple(sizes.values()))}


def cases(seed):
    yield from function_cases(
        "gradient",
        make,
        small=[{"function": 0, "D": 1}, {"function": 0, "D": 2}, {"function": 1, "N": 2, "D": 2}],
        random=[{"function": 1, "D": 3}, {"function": 2, "N": 2, "D": 3}, {"function": 2, "B": 2, "T": 1, "D": 2}],
        seed=seed,
        expected=gradient_of,
        edges={"shape ()": {"f": cube, "x": np.array(2.0)}, "no entries": {"f": cube, "x": np.zeros((0, 3))}},
        tolerance=1e-13,
    )
