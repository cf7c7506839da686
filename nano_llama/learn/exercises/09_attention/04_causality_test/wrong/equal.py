# stage: smallest | says: The last bits may depend on the future where no answer does: compare within a tolerance.
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
            assert np.array_equal(after[:place], before[:place])
