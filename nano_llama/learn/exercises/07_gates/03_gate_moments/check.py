import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, tenths):
    return {"spread": tenths / 10}


def drawn(rng):
    return {"spread": round(float(rng.uniform(0.2, 3.0)), 3)}


def by_summing(spread):
    """The same integrals as sums over a fine grid, which the bell makes exact for smooth functions."""
    z, step = np.linspace(-12, 12, 24_001, retstep=True)
    weight = np.exp(-z * z / 2) * step / np.sqrt(2 * np.pi)
    silu = spread * z / (1 + np.exp(-spread * z))
    mean, square = float(weight @ silu), float(weight @ silu**2)
    return mean, square, square - mean**2


def cases(seed):
    yield from function_cases(
        "gate_moments",
        make,
        small=[{"tenths": 10}, {"tenths": 5}, {"tenths": 20}],
        random=[],
        seed=seed,
        expected=by_summing,
        tolerance=1e-4,
    )
    yield from function_cases(
        "gate_moments",
        drawn,
        small=[],
        random=[{}, {}, {}],
        seed=seed,
        expected=by_summing,
        tolerance=1e-4,
        edges={"almost closed": {"spread": 0.01}, "wide open": {"spread": 5.0}},
    )
