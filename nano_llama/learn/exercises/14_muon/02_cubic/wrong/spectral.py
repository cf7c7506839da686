# stage: smallest | says: By the Frobenius norm, not by the largest singular value: this one needs fewer rounds, and an SVD.
import numpy as np


def orthogonal(matrix, tolerance):
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x, rounds = x / np.linalg.norm(x, 2), 0
    while np.abs(x @ x.T - np.eye(len(x))).max() > tolerance:
        x, rounds = 1.5 * x - 0.5 * (x @ x.T) @ x, rounds + 1
    return (x.T if tall else x), rounds
