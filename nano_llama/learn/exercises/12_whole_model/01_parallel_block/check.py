from nano_llama.learn.checks import op_cases


def make(rng, N, D):
    return {
        "x": rng.standard_normal((N, D)),
        "A": rng.standard_normal((D, D)) / 2,
        "B": rng.standard_normal((D, D)) / 2 + 0.2,
    }


def cases(seed):
    yield from op_cases(
        "parallel_forward",
        "parallel_backward",
        make,
        wrt=("x", "A", "B"),
        small=[{"N": 1, "D": 2}, {"N": 2, "D": 2}, {"N": 2, "D": 3}],
        random=[{"N": 3, "D": 4}, {"N": 4, "D": 6}],
        seed=seed,
    )
