# stage: smallest | says: A window of the past: what comes after the position is forbidden, too.
import numpy as np


def window_mask(queries, keys, window):
    t = np.arange(keys - queries, keys)[:, None]  # the queries are the last positions
    s = np.arange(keys)[None, :]
    return abs(s - t) < window
