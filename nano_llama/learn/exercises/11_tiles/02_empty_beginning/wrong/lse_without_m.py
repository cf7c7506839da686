# stage: smallest | says: The sums are relative to the maximum: it belongs to the lse.
import numpy as np


def online(scores, values, block):
    m, l, o = -np.inf, 0.0, np.zeros(values.shape[1])
    for start in range(0, len(scores), block):
        s = scores[start : start + block]
        n = max(m, s.max())
        if n == -np.inf:
            continue
        p = np.exp(s - n)
        old = np.exp(m - n)
        l = l * old + p.sum()
        o = o * old + p @ values[start : start + block]
        m = n
    if l == 0:
        return o, -np.inf
    return o / l, float(np.log(l))
