# stage: smallest | says: A fixed number of rounds is too many for one matrix and too few for another; go on until it is orthogonal.
import numpy as np


def orthogonal(matrix, tolerance):
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x, rounds = x / np.linalg.norm(x), 0
    for _ in range(12):
        x, rounds = 1.5 * x - 0.5 * (x @ x.T) @ x, rounds + 1
    return (x.T if tall else x), rounds
