import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = dlogits.T @ hidden  # as the head
    np.add.at(dE, tokens, dx)  # as the embedding
    return dE
