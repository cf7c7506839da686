import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, T, n):
    return {
        "theta": rng.standard_normal(n), "gradients": rng.standard_normal((T, n)) * np.geomspace(4, 0.5, T)[:, None],
        "lr": 0.5, "b1": 0.6, "b2": 0.8, "eps": 0.1,
    }  # fmt: skip


def by_sums(theta, gradients, lr, b1, b2, eps):
    T = len(gradients)
    t = np.arange(1, T + 1)[:, None]  # (T,1)
    ages = t - t.T  # (T,T): how old gradient i is at step t

    def mean(x, b):
        return np.where(ages >= 0, (1 - b) * b ** np.maximum(ages, 0.0), 0) @ x

    largest = np.maximum.accumulate(mean(gradients**2, b2), axis=0)
    steps = mean(gradients, b1) / (1 - b1**t) / (np.sqrt(largest / (1 - b2**t)) + eps)
    return theta - lr * np.cumsum(steps, axis=0)


def spike():
    gradients = np.full((12, 2), 0.1)
    gradients[2, 0] = 100.0
    return {"theta": np.zeros(2), "gradients": gradients, "lr": 1.0, "b1": 0.9, "b2": 0.5, "eps": 1e-8}


def cases(seed):
    yield from function_cases(
        "amsgrad",
        make,
        small=[{"T": 1, "n": 1}, {"T": 3, "n": 1}, {"T": 4, "n": 2}],
        random=[{"T": 20, "n": 3}, {"T": 7, "n": 5}],
        seed=seed,
        expected=by_sums,
        edges={"one gradient of a hundred, then small ones": spike()},
    )
