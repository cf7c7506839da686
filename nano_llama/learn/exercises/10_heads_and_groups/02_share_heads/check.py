import numpy as np

from nano_llama.learn.checks import function_cases


def make(rng, H, G, K, D):
    return {"weight": rng.standard_normal((H * K, D)), "H": H, "G": G, "K": K}


def row_by_row(weight, H, G, K):
    shared = np.zeros((G * K, weight.shape[1]))
    for head in range(H):
        for row in range(K):
            shared[head // (H // G) * K + row] += weight[head * K + row] / (H // G)
    return shared


def cases(seed):
    yield from function_cases(
        "share_heads",
        make,
        small=[
            {"H": 2, "G": 1, "K": 2, "D": 2},
            {"H": 4, "G": 2, "K": 2, "D": 2},
            {"H": 6, "G": 2, "K": 3, "D": 2},
        ],
        random=[{"H": 8, "G": 4, "K": 4, "D": 7}, {"H": 9, "G": 3, "K": 5, "D": 4}],
        seed=seed,
        expected=row_by_row,
        edges={"as many groups as heads": make(np.random.default_rng(2), H=3, G=3, K=2, D=4)},
    )
