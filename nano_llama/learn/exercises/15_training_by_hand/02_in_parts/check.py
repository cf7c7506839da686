import numpy as np

from nano_llama.learn.checks import function_cases, memory_case

SIZE = 100_000


def gradient(part):
    """the mean over the rows of the part: (loss, weight, weight, bias), and the number of rows"""
    loss, *grads = part.mean(axis=0) if len(part) else np.zeros(4)
    return float(loss), {"weight": np.array(grads[:2]), "bias": np.array([grads[2]])}, len(part)


def make(rng, parts, rows, limit):
    cuts = np.sort(rng.choice(np.arange(1, rows), parts - 1, replace=False))
    return of(np.round(rng.standard_normal((rows, 4)), 1), cuts, float(limit))


def of(rows, cuts, limit):
    return {"gradient": gradient, "parts": np.split(rows, cuts), "limit": limit}


def whole(gradient, parts, limit):
    loss, grads, _ = gradient(np.concatenate(parts))
    norm = float(np.linalg.norm(np.concatenate(list(grads.values()))))
    return loss, {name: grad * min(1.0, limit / norm) if norm else grad for name, grad in grads.items()}, norm


def large(part):
    return 1.0, {"weight": np.full(SIZE, part, np.float64)}, 3


def cases(seed):
    rows = np.round(np.random.default_rng(5).standard_normal((6, 4)), 1)
    yield from function_cases(
        "gather",
        make,
        small=[
            {"parts": 1, "rows": 1, "limit": 100},
            {"parts": 2, "rows": 3, "limit": 100},
            {"parts": 2, "rows": 3, "limit": 0.1},
        ],
        random=[{"parts": 3, "rows": 7, "limit": 0.2}, {"parts": 5, "rows": 20, "limit": 50}],
        seed=seed,
        expected=whole,
        edges={
            "a part without targets": of(rows, [2, 2], 0.3),
            "no targets at all": of(rows[:0], [0], 0.3),
            "one target in all": of(rows[:1], [0], 0.3),
        },
    )
    yield memory_case(
        "twelve parts",
        lambda module: list(range(1, 13)),
        lambda module, parts: module.gather(large, parts, 1.0),
        limit=5,
        unit=8 * SIZE,
        what="gradients",
    )
