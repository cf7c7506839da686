import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, parts, targets=6):
    """Each target has a loss and gradients of its own; parts are consecutive pieces of unequal length."""
    cuts = np.sort(rng.choice(np.arange(1, targets), parts - 1, replace=False))
    return whole(np.round(rng.standard_normal((targets, 5)), 1), cuts)


def whole(rows, cuts):
    pieces = np.split(rows, cuts)
    means = [piece.mean(axis=0) if len(piece) else np.zeros(5) for piece in pieces]
    return {
        "losses": np.array([mean[0] for mean in means]),
        "grads": [{"weight": mean[1:3], "bias": mean[3:].reshape(2, 1)} for mean in means],
        "counts": np.array([len(piece) for piece in pieces]),
    }


def cases(seed):
    rows = np.round(np.random.default_rng(5).standard_normal((4, 5)), 1)
    yield from function_cases(
        "combine",
        make,
        small=[{"parts": 1, "targets": 1}, {"parts": 2, "targets": 3}],
        random=[{"parts": 3, "targets": 7}, {"parts": 5, "targets": 20}],
        seed=seed,
        edges={
            "a part without targets": whole(rows, [1, 1]),
            "no targets at all": whole(rows[:0], [0]),
            "one target in all": whole(rows[:1], [0]),
        },
    )
