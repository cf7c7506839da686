# stage: smallest | says: The weights of the two halves add up to one.
import numpy as np


def two_halves(out1, lse1, out2, lse2):
    lse = np.logaddexp.reduce([lse1, lse2])  # (T,)
    base = np.maximum(lse1, lse2)  # where neither saw a key, any finite number will do
    return np.exp(lse1 - base)[:, None] * out1 + np.exp(lse2 - base)[:, None] * out2, lse
