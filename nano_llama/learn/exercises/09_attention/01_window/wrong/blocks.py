# stage: smallest | says: A window moves with the position; that cuts the text into blocks.
import numpy as np


def window_mask(queries, keys, window):
    t = np.arange(keys - queries, keys)[:, None]  # the queries are the last positions
    s = np.arange(keys)[None, :]
    return (s <= t) & (s // window == t // window)
