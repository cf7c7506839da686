from nano_llama.learn.checks import function_cases


def make(rng, digits):
    value, third = (round(float(x), 1) for x in rng.uniform(1, 9, 2))
    return {"value": value, "third": third, "u": 10.0**-digits}


def cases(seed):
    yield from function_cases(
        "best_step",
        make,
        small=[{"digits": 3}, {"digits": 7}, {"digits": 16}],
        random=[{"digits": 16}, {"digits": 7}, {"digits": 5}],
        seed=seed,
        edges={
            "a negative value": {"value": -2.0, "third": 3.0, "u": 1e-16},
            "a negative third derivative": {"value": 2.0, "third": -3.0, "u": 1e-16},
        },
        floor=0.0,
    )
