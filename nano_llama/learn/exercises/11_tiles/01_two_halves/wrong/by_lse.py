# stage: smallest | says: A half counts by e to its lse, not by its lse.
import numpy as np


def two_halves(out1, lse1, out2, lse2):
    lse = np.logaddexp.reduce([lse1, lse2])  # (T,)
    base = np.nan_to_num(lse)  # where neither saw a key, any finite number will do
    return (lse1[:, None] * out1 + lse2[:, None] * out2) / (lse1 + lse2)[:, None], lse
