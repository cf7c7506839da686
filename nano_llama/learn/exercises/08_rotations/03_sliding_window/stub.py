import numpy as np


def slide(keys, dropped, frequencies):
    """keys: (S,K), turned at positions 0 to S - 1   dropped: how many of the oldest go   frequencies: (K/2,)

    -> (S - dropped, K): the keys that stay, as if turned at positions 0 to S - dropped - 1
    """
    ...
    # return kept
