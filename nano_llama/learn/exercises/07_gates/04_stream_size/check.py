import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, layers, D, F, scaled):
    start, spread = rng.uniform((0.3, 0.6), (0.9, 1.8))
    sigma = round(float(spread / np.sqrt(D)), 2)
    return {"start": round(float(start), 2), "layers": layers, "D": D, "F": F, "sigma": sigma, "scaled": scaled}


def by_summing(start, layers, D, F, sigma, scaled):
    z, step = np.linspace(-12, 12, 4001, retstep=True)
    a = np.sqrt(D) * sigma * z
    opened = np.sum(np.exp(-z * z / 2) * (a / (1 + np.exp(-a))) ** 2) * step / np.sqrt(2 * np.pi)
    write = F * sigma**2 * opened * D * sigma**2
    return float(np.sqrt(start**2 + write * (1 if scaled else layers)))


def near_a_simulation(rms, start, layers, D, F, sigma, scaled):
    rng = np.random.default_rng(17)
    x = start * rng.standard_normal((400, D))
    writing = sigma / np.sqrt(layers) if scaled else sigma
    for _ in range(layers):
        n = x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True))
        gate, up = (n @ (sigma * rng.standard_normal((D, F))) for _ in range(2))
        x = x + gate / (1 + np.exp(-gate)) * up @ (writing * rng.standard_normal((F, D)))
    measured = float(np.sqrt(np.mean(x * x)))
    if abs(rms / measured - 1) < 0.05:
        return None
    return f"Such a stream was built and measured: its rms is {measured:.3f}."


def cases(seed):
    yield from function_cases(
        "stream_size",
        make,
        small=[
            {"layers": 1, "D": 4, "F": 8, "scaled": False},
            {"layers": 2, "D": 4, "F": 8, "scaled": False},
            {"layers": 4, "D": 9, "F": 5, "scaled": True},
        ],
        random=[
            {"layers": 12, "D": 64, "F": 172, "scaled": False},
            {"layers": 40, "D": 32, "F": 96, "scaled": True},
        ],
        seed=seed,
        expected=by_summing,
        tolerance=1e-5,
    )
    built = {"start": 0.5, "layers": 16, "D": 96, "F": 256, "sigma": 0.1}
    yield from function_cases(
        "stream_size",
        make,
        small=[],
        random=[],
        seed=seed,
        holds=near_a_simulation,
        edges={
            "a stream that was built": {**built, "scaled": False},
            "with scaled writes": {**built, "scaled": True},
        },
    )
