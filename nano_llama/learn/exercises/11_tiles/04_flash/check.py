import numpy as np

from nano_llama.learn.checks import memory_case, op_cases

T, K, BLOCK = 384, 8, 32
UNIT = T * T  # bytes: an eighth of the matrix of scores in float64


def make(rng, T, K, block):
    return {**{name: rng.standard_normal((T, K)) for name in "qkv"}, "block": block}


def cases(seed):
    large = make(np.random.default_rng(3), T=7, K=2, block=3)
    large["q"] = large["q"] * 500
    yield from op_cases(
        "flash_forward",
        "flash_backward",
        make,
        wrt=("q", "k", "v"),
        small=[{"T": 2, "K": 1, "block": 1}, {"T": 4, "K": 2, "block": 2}, {"T": 5, "K": 2, "block": 2}],
        random=[{"T": 11, "K": 4, "block": 4}, {"T": 9, "K": 3, "block": 20}],
        seed=seed,
        out="out",
        edges={"large scores": large},
    )
    inputs = make(np.random.default_rng(6), T, K, BLOCK)
    dout = np.random.default_rng(7).standard_normal((T, K))

    def forward(module, nothing):
        return module.flash_forward(**inputs)

    def prepare(module):
        return module.flash_forward(**inputs)[1]

    def backward(module, cache):
        return module.flash_backward(dout, cache)

    yield memory_case("forward", lambda module: None, forward, 1, UNIT, "eighths of the T x T matrix")
    yield memory_case("backward", prepare, backward, 1, UNIT, "eighths of the T x T matrix")
