from nano_llama.learn.checks import op_cases


def make(rng, **sizes):
    *rows, inputs, outputs = sizes.values()
    return {
        "x": rng.standard_normal((*rows, inputs)),
        "weight": rng.standard_normal((outputs, inputs)),
        "bias": rng.standard_normal(outputs),
    }


def cases(seed):
    yield from op_cases(
        "linear_forward",
        "linear_backward",
        make,
        wrt=("x", "weight", "bias"),
        small=[
            {"N": 1, "I": 1, "O": 1},
            {"N": 1, "I": 2, "O": 1},
            {"N": 2, "I": 2, "O": 2},
            {"B": 2, "T": 2, "I": 3, "O": 4},
        ],
        random=[{"N": 5, "I": 3, "O": 2}, {"I": 4, "O": 3}, {"B": 3, "T": 2, "I": 2, "O": 5}],
        seed=seed,
        edges={"no rows": make_empty()},
    )


def make_empty():
    import numpy as np

    return make(np.random.default_rng(5), N=0, I=2, O=3)
