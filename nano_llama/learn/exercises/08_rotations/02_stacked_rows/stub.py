import numpy as np


def stacked_rows(weight, H, G, K):
    """weight: ((H + 2 G) K, D), the rows of queries, keys and values on top of each other, in the half layout

    -> the same matrix for the interleaved layout
    """
    ...
    # return permuted
