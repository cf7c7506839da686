import numpy as np


def tied_gradient(dx, tokens, dlogits, hidden, V):
    """dx: (N,D), what came back to the embeddings   tokens: (N,)   dlogits: (N,V)   hidden: (N,D), what the head read

    -> dE (V,D)
    """
    ...
    # return dE
