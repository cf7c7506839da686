import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, rows, columns):
    step, gradient = rng.standard_normal((2, rows, columns))
    if columns > 2:
        step[0, 0], gradient[-1, -1] = 0, 0
    return {"step": step, "gradient": gradient}


def one_by_one(step, gradient):
    taken, count = np.zeros_like(step), 0
    for place in np.ndindex(step.shape):
        if np.sign(step[place]) == np.sign(gradient[place]) != 0:
            taken[place] = step[place]
            count += 1
    return taken * min(step.size / count, 1000) if count else taken


def rare():
    step = np.ones((1, 2500))
    gradient = -step
    gradient[0, 7] = 1
    return {"step": step, "gradient": gradient}


def cases(seed):
    yield from function_cases(
        "cautious",
        make,
        small=[{"rows": 1, "columns": 2}, {"rows": 2, "columns": 2}, {"rows": 2, "columns": 3}],
        random=[{"rows": 6, "columns": 5}, {"rows": 3, "columns": 40}],
        seed=seed,
        expected=one_by_one,
        edges={
            "no entry agrees": {"step": np.array([[1.0, -2, 0]]), "gradient": np.array([[-1.0, 3, 1]])},
            "one entry of 2,500 agrees": rare(),
        },
    )
