import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, N, D, V):
    return {
        "dx": rng.standard_normal((N, D)),
        "tokens": np.append(rng.integers(0, V, N - 1), 0) if N < 3 else np.append(rng.integers(0, V, N - 2), [1, 1]),
        "dlogits": rng.standard_normal((N, V)),
        "hidden": rng.standard_normal((N, D)),
        "V": V,
    }


def place_by_place(dx, tokens, dlogits, hidden, V):
    dE = np.zeros((V, dx.shape[1]))
    for n, token in enumerate(tokens):
        dE[token] += dx[n]
        for v in range(V):
            dE[v] += dlogits[n, v] * hidden[n]
    return dE


def cases(seed):
    yield from function_cases(
        "tied_gradient",
        make,
        small=[{"N": 3, "D": 2, "V": 3}, {"N": 4, "D": 2, "V": 5}, {"N": 5, "D": 3, "V": 4}],
        random=[{"N": 9, "D": 4, "V": 6}, {"N": 30, "D": 3, "V": 8}],
        seed=seed,
        expected=place_by_place,
    )
