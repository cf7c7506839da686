# stage: smallest | says: These are natural logarithms.
import numpy as np


def two_halves(out1, lse1, out2, lse2):
    lse = np.logaddexp2.reduce([lse1, lse2])  # (T,)
    base = np.nan_to_num(lse)  # where neither saw a key, any finite number will do
    return np.exp2(lse1 - base)[:, None] * out1 + np.exp2(lse2 - base)[:, None] * out2, lse
