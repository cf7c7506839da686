import numpy as np

from nano_llama.learn.checks import Case, called, function_cases


def make(rng, V, most):
    q = rng.uniform(0.5, 2, V)
    return {"counts": rng.integers(0, most + 1, (V, V)), "q": q / q.sum(), "d": 0.75}


SMALL = {
    1: ([[2]], [1.0]),
    2: ([[1, 0], [1, 1]], [0.6, 0.4]),
    3: ([[2, 0, 1], [0, 0, 4], [1, 1, 1]], [0.5, 0.3, 0.2]),
}


def make_small(rng, V):
    counts, q = SMALL[V]
    return {"counts": np.array(counts), "q": np.array(q), "d": 0.5}


def row_by_row(counts, q, d):
    rows = []
    for row in counts:
        if not row.any():
            rows.append(q)
            continue
        kept = np.array([max(count - d, 0.0) / row.sum() for count in row])
        rows.append(kept + (1 - kept.sum()) * q)
    return np.array(rows)


def cases(seed):
    inputs = make(np.random.default_rng(5), V=3, most=4)
    some = inputs["counts"].copy()
    some[1] = 0
    yield from function_cases(
        "discounted",
        make_small,
        small=[{"V": V} for V in SMALL],
        random=[],
        seed=seed,
        expected=row_by_row,
    )

    def holds(outputs):
        sums = outputs["P"].sum(axis=1)
        worst = int(np.argmax(np.abs(sums - 1)))
        if abs(sums[worst] - 1) > 1e-9:
            return f"Row {worst} adds up to {sums[worst]:.6g}."
        return "A probability is negative." if outputs["P"].min() < 0 else None

    yield Case(
        "random",
        "rows add up to 1",
        lambda module: {"P": called(module, "discounted", inputs)},
        inputs=inputs,
        holds=holds,
    )
    yield from function_cases(
        "discounted",
        make,
        small=[],
        random=[{"V": 4, "most": 3}, {"V": 9, "most": 2}],
        seed=seed,
        expected=row_by_row,
        edges={"a row without counts": inputs | {"counts": some}, "d = 1": inputs | {"d": 1.0}},
    )
