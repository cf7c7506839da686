# stage: smallest | says: Its largest singular value is one, but the others are smaller: they could win more.
import numpy as np


def steepest(g, length):
    if length == "frobenius":
        d = g / np.linalg.norm(g)
    elif length == "entries":
        d = np.sign(g)
    elif length == "columns":
        sizes = np.linalg.norm(g, axis=0)
        d = np.divide(g, sizes, out=np.zeros_like(g), where=sizes > 0)
    else:
        p, _, q = np.linalg.svd(g, full_matrices=False)
        d = g / np.linalg.norm(g, 2)
    return d, np.sum(g * d)
