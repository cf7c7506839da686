# stage: smallest | says: A position may look at itself.
import numpy as np


def window_mask(queries, keys, window):
    t = np.arange(keys - queries, keys)[:, None]  # the queries are the last positions
    s = np.arange(keys)[None, :]
    return (s < t) & (s > t - window)
