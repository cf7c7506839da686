# stage: smallest | says: The gradient of the embedding is added to that of the head; it does not replace it.
import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = dlogits.T @ hidden  # as the head
    dE[tokens] = dx  # as the embedding
    return dE
