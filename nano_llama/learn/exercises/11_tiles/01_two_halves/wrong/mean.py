# stage: smallest | says: The halves count by how much they saw, not alike.
import numpy as np


def two_halves(out1, lse1, out2, lse2):
    lse = np.logaddexp.reduce([lse1, lse2])  # (T,)
    base = np.nan_to_num(lse)  # where neither saw a key, any finite number will do
    return (out1 + out2) / 2, lse
