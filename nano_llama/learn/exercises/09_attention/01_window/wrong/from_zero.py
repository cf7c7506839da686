# stage: smallest | says: The queries are the last of all positions: the first one stands at keys - queries.
import numpy as np


def window_mask(queries, keys, window):
    t = np.arange(queries)[:, None]  # the queries are the last positions
    s = np.arange(keys)[None, :]
    return (s <= t) & (s > t - window)
