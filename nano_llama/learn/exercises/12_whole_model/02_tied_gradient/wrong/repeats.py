# stage: smallest | says: A token that stands several times gets the gradients of all its places.
import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = dlogits.T @ hidden  # as the head
    dE[tokens] += dx  # as the embedding
    return dE
