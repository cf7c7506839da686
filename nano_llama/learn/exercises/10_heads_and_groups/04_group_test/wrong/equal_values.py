# stage: random | says: Your groups have the same values, so only the keys are tested.
import numpy as np


def check_groups(attend):
    rng = np.random.default_rng(0)
    H, G, T, K = 6, 2, 5, 3
    q = rng.standard_normal((H, T, K))
    k, v = rng.standard_normal((G, T, K)), np.repeat(rng.standard_normal((1, T, K)), G, axis=0)
    expected = np.zeros((H, T, K))
    for h in range(H):
        scores = q[h] @ k[h // (H // G)].T / np.sqrt(K)
        P = np.exp(scores)
        expected[h] = P / P.sum(axis=1, keepdims=True) @ v[h // (H // G)]
    np.testing.assert_allclose(attend(q, k, v), expected, atol=1e-9)
