import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, **sizes):
    x = rng.standard_normal(tuple(sizes.values()))
    return {"x": x, "weight": rng.standard_normal(x.shape[-1]) + 1, "eps": 0.1, "dy": rng.standard_normal(x.shape)}


def dot_of_both(x, weight, eps, dy):
    """Through dx itself, in long doubles, which keep enough digits where eps is not small."""
    x, weight, dy = x.astype(np.longdouble), weight.astype(np.longdouble), dy.astype(np.longdouble)
    r = 1 / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)
    g = dy * weight
    dx = r * g - x * r**3 * np.mean(g * x, axis=-1, keepdims=True)
    return np.asarray(np.sum(x * dx, axis=-1), np.float64)


def cases(seed):
    inputs = make(np.random.default_rng(5), N=3, D=4)
    yield from function_cases(
        "radial",
        make,
        small=[{"N": 1, "D": 1}, {"N": 1, "D": 2}, {"N": 2, "D": 3}],
        random=[{"N": 4, "D": 6}, {"B": 2, "T": 3, "D": 5}],
        seed=seed,
        expected=dot_of_both,
    )
    yield from function_cases(
        "radial",
        lambda rng: make(rng, N=3, D=4),
        small=[],
        random=[],
        seed=seed,
        edges={"eps = 1e-12": inputs | {"eps": 1e-12}, "eps = 0": inputs | {"eps": 0.0}},
        floor=0.0,
    )
