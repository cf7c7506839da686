import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, H, G, K, D):
    return {"weight": rng.standard_normal(((H + 2 * G) * K, D)), "H": H, "G": G, "K": K}


def row_by_row(weight, H, G, K):
    """Where each row comes from, written out."""
    result = []
    for head in range(H + 2 * G):
        for place in range(K):
            turned = head < H + G
            source = place // 2 + (K // 2 if place % 2 else 0) if turned else place
            result.append(weight[head * K + source])
    return np.array(result)


def cases(seed):
    yield from function_cases(
        "stacked_rows",
        make,
        small=[
            {"H": 1, "G": 1, "K": 4, "D": 2},
            {"H": 2, "G": 1, "K": 6, "D": 2},
            {"H": 2, "G": 2, "K": 4, "D": 4},
        ],
        random=[{"H": 6, "G": 2, "K": 8, "D": 10}, {"H": 3, "G": 3, "K": 16, "D": 5}],
        seed=seed,
        expected=row_by_row,
    )
