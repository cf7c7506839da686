import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, T, n):
    return {
        "theta": rng.standard_normal(n), "gradients": rng.standard_normal((T, n)) * 2,
        "lr": 0.5, "b1": 0.6, "b2": 0.8, "eps": 0.1,
    }  # fmt: skip


LATE = np.array([[0.0, 0], [1, 0], [1, 2]])


def twice_the_last(theta, gradients, lr, b1, b2, eps):
    path = []
    for t in range(1, len(gradients) + 1):
        once, twice = gradients[:t], np.concatenate([gradients[:t], gradients[t - 1 : t]])
        weights = b1 ** np.arange(t, -1, -1.0)  # (t+1,)
        squares = b2 ** np.arange(t - 1, -1, -1.0)  # (t,)
        m, v = weights @ twice / weights.sum(), squares @ once**2 / squares.sum()
        theta = theta - lr * m / (np.sqrt(v) + eps)
        path.append(theta)
    return np.array(path)


def cases(seed):
    yield from function_cases(
        "nadam",
        make,
        small=[{"T": 1, "n": 1}, {"T": 3, "n": 1}, {"T": 4, "n": 2}],
        random=[{"T": 20, "n": 3}, {"T": 7, "n": 5}],
        seed=seed,
        expected=twice_the_last,
        edges={"no gradient at first": make(np.random.default_rng(4), T=3, n=2) | {"gradients": LATE}},
    )
