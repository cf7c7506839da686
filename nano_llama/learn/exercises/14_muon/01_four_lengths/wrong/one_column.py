# stage: smallest | says: The longest column has length one, and the shorter ones may have it too: each wins something.
import numpy as np


def steepest(g, length):
    if length == "frobenius":
        d = g / np.linalg.norm(g)
    elif length == "entries":
        d = np.sign(g)
    elif length == "columns":
        sizes = np.linalg.norm(g, axis=0)
        d = g / sizes.max()
    else:
        p, _, q = np.linalg.svd(g, full_matrices=False)
        d = p @ q
    return d, np.sum(g * d)
