import numpy as np

from nano_llama.learn.checks import function_cases


def turned(plain, frequencies, start=0):
    half = plain.shape[1] // 2
    angles = (start + np.arange(len(plain)))[:, None] * frequencies
    z = (plain[:, :half] + 1j * plain[:, half:]) * np.exp(1j * angles)
    return np.concatenate((z.real, z.imag), axis=1)


def make(rng, S, K, dropped):
    frequencies = np.round(rng.uniform(0.1, 1.0, K // 2), 2)
    return {"keys": turned(rng.standard_normal((S, K)), frequencies), "dropped": dropped, "frequencies": frequencies}


def computed_anew(keys, dropped, frequencies):
    """What the keys were before they were turned, turned at their new positions."""
    half = keys.shape[1] // 2
    z = (keys[:, :half] + 1j * keys[:, half:]) * np.exp(-1j * np.arange(len(keys))[:, None] * frequencies)
    return turned(np.concatenate((z.real, z.imag), axis=1)[dropped:], frequencies)


def cases(seed):
    yield from function_cases(
        "slide",
        make,
        small=[
            {"S": 3, "K": 2, "dropped": 1},
            {"S": 4, "K": 4, "dropped": 1},
            {"S": 4, "K": 6, "dropped": 2},
        ],
        random=[{"S": 12, "K": 8, "dropped": 5}, {"S": 30, "K": 16, "dropped": 17}],
        seed=seed,
        expected=computed_anew,
        edges={
            "none dropped": make(np.random.default_rng(2), S=4, K=6, dropped=0),
            "all dropped": make(np.random.default_rng(2), S=4, K=6, dropped=4),
        },
    )
