# stage: edge | says: A column of zeros has no direction; leave it at zero instead of dividing by its length.
import numpy as np


def steepest(g, length):
    if length == "frobenius":
        d = g / np.linalg.norm(g)
    elif length == "entries":
        d = np.sign(g)
    elif length == "columns":
        sizes = np.linalg.norm(g, axis=0)
        d = g / sizes
    else:
        p, _, q = np.linalg.svd(g, full_matrices=False)
        d = p @ q
    return d, np.sum(g * d)
