import numpy as np


def window_mask(queries, keys, window):
    """queries <= keys: the queries are the last of `keys` positions   window >= 1

    -> (queries,keys) of booleans, True where a query may look
    """
    ...
    # return mask
