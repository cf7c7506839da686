# stage: smallest | says: Where every entry may be as large as one, none should be smaller.
import numpy as np


def steepest(g, length):
    if length == "frobenius":
        d = g / np.linalg.norm(g)
    elif length == "entries":
        d = g / np.abs(g).max()
    elif length == "columns":
        sizes = np.linalg.norm(g, axis=0)
        d = np.divide(g, sizes, out=np.zeros_like(g), where=sizes > 0)
    else:
        p, _, q = np.linalg.svd(g, full_matrices=False)
        d = p @ q
    return d, np.sum(g * d)
