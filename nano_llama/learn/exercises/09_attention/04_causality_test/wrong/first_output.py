# stage: random | says: Every place counts: change the text at each one, and compare all the answers before it.
import numpy as np


def check_causal(attend):
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((24, 8)) for _ in range(3))
    before = attend(q, k, v)
    for place in range(1, 24):
        for moved in range(3):
            others = [q.copy(), k.copy(), v.copy()]
            others[moved][place:] += 3 * rng.standard_normal((24 - place, 8))
            after = attend(*others)
            np.testing.assert_allclose(after[:1], before[:1], atol=1e-9)
