# stage: smallest | says: Two uses, two gradients: they add up, they are not averaged.
import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = dlogits.T @ hidden  # as the head
    np.add.at(dE, tokens, dx)  # as the embedding
    return dE / 2
