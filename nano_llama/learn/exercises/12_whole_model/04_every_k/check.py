import numpy as np

from nano_llama.learn.checks import function_cases


class Chain:
    """Counts what its layers are asked to do, and how many caches are alive."""

    def __init__(self):
        self.forwards, self.alive, self.most = 0, 0, 0


class Cache:
    def __init__(self, chain, value):
        self.chain, self.value = chain, value
        chain.alive += 1
        chain.most = max(chain.most, chain.alive)

    def __del__(self):
        self.chain.alive -= 1


class Layer:
    """y = tanh(x W^T)."""

    def __init__(self, weight, chain):
        self.weight, self.chain = weight, chain

    def __repr__(self):
        return f"tanh(x {self.weight.tolist()}^T)"

    def forward(self, x):
        self.chain.forwards += 1
        y = np.tanh(x @ self.weight.T)
        return y, Cache(self.chain, y)

    def backward(self, dy, cache):
        return (dy * (1 - cache.value**2)) @ self.weight


def make(rng, layers, D, every):
    chain = Chain()
    weights = np.round(rng.standard_normal((layers, D, D)), 1)
    return {
        "layers": [Layer(weight, chain) for weight in weights],
        "x": rng.standard_normal((2, D)),
        "dy": rng.standard_normal((2, D)),
        "every": every,
    }


def holds(dx, layers, x, dy, every):
    chain = layers[0].chain
    forwards, most = chain.forwards, chain.most
    chain.forwards = chain.most = 0
    values = [x]
    for layer in layers:
        values.append(np.tanh(values[-1] @ layer.weight.T))
    for layer, y in zip(reversed(layers), reversed(values), strict=False):
        dy = (dy * (1 - y**2)) @ layer.weight
    if np.shape(dx) != dy.shape or not np.allclose(dx, dy, rtol=1e-9, atol=1e-12):
        return "dx is wrong."
    if most > every + 2:  # variables may hold an old one or two
        return f"{most} caches were alive at once; with stretches of {every}, {every} are enough."
    if forwards > 2 * len(layers):
        return f"{forwards} forward passes of a layer; with {len(layers)} layers {2 * len(layers)} are enough."
    return None


def cases(seed):
    yield from function_cases(
        "chain_backward",
        make,
        small=[
            {"layers": 6, "D": 2, "every": 2},
            {"layers": 7, "D": 2, "every": 2},
            {"layers": 8, "D": 2, "every": 3},
        ],
        random=[{"layers": 9, "D": 3, "every": 3}, {"layers": 10, "D": 2, "every": 4}],
        seed=seed,
        holds=holds,
        edges={
            "each layer by itself": make(np.random.default_rng(3), layers=4, D=2, every=1),
            "one stretch": make(np.random.default_rng(4), layers=3, D=2, every=8),
        },
    )
