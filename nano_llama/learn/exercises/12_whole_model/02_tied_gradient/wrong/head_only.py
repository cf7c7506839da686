# stage: smallest | says: The same matrix made the embeddings, too.
import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = dlogits.T @ hidden  # as the head
    return dE
