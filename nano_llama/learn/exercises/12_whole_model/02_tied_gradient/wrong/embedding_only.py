# stage: smallest | says: The same matrix made the logits, too.
import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = np.zeros((V, dx.shape[1]), dx.dtype)
    np.add.at(dE, tokens, dx)  # as the embedding
    return dE
