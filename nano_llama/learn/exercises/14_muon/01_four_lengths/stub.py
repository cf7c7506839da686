import numpy as np


def steepest(g, length):
    """g: (rows,columns)   length: "frobenius", "entries", "columns" or "spectral"

    -> d (rows,columns), of length one, and the sum of g * d
    """
    ...
    # return d, value
