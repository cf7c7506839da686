# stage: smallest | says: The product on the longer side cannot become the identity: its rank is too small. Did you stop it otherwise?
import numpy as np


def orthogonal(matrix, tolerance):
    tall = False
    x = matrix.T if tall else matrix
    x, rounds = x / np.linalg.norm(x), 0
    while rounds < 100 and np.abs(x @ x.T - np.eye(len(x))).max() > tolerance:
        x, rounds = 1.5 * x - 0.5 * (x @ x.T) @ x, rounds + 1
    return (x.T if tall else x), rounds
