import math

from nano_llama.learn.checks import function_cases

PARTS = ("input_norm", "q_proj", "k_proj", "v_proj", "o_proj", "post_norm", "gate_proj", "up_proj", "down_proj")


def make(rng, layers, at):
    """A mistake in the backward of tensor `at`: all that comes before it in the forward pass is wrong, too."""
    names = ["embed", *(f"{layer}.{part}" for layer in range(layers) for part in PARTS), "norm", "head"]
    errors = {}
    for place, name in enumerate(names):
        wrong = place <= at < len(names)
        errors[name] = round(float(rng.uniform(0.01, 2)), 3) if wrong else round(float(rng.uniform(1e-13, 1e-11)), 15)
    return {"errors": errors, "tolerance": 1e-7}


def cases(seed):
    clean = {"embed": 1e-12, "norm": 1e-13, "head": 0.0}
    yield from function_cases(
        "culprit",
        make,
        small=[{"layers": 1, "at": 4}, {"layers": 1, "at": 8}, {"layers": 1, "at": 99}],
        random=[{"layers": 3, "at": 17}, {"layers": 2, "at": 6}],
        seed=seed,
        edges={
            "a NaN": {"errors": {"embed": 0.1, "norm": math.nan, "head": 0.0}, "tolerance": 1e-7},
            "exactly the tolerance": {"errors": {**clean, "norm": 1e-7}, "tolerance": 1e-7},
        },
    )
