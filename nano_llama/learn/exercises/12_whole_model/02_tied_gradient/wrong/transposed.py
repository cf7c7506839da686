# stage: shapes | says: dE has a row for each token of the vocabulary.
import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    dE = (dlogits.T @ hidden).T  # as the head
    return dE
