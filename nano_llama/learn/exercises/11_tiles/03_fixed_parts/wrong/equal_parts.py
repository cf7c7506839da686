# stage: smallest | says: The parts have a fixed size, whatever the length: only the last one may be shorter.
import numpy as np


def decode(q, keys, values, size):
    number = -(-len(keys) // size)
    size = -(-len(keys) // number)
    parts = range(0, len(keys), size)
    outs, lses = np.zeros((len(parts), values.shape[1])), np.zeros(len(parts))
    for i, start in enumerate(parts):
        s = keys[start : start + size] @ q / np.sqrt(len(q))
        e = np.exp(s - s.max())
        outs[i] = e @ values[start : start + size] / e.sum()
        lses[i] = s.max() + np.log(e.sum())
    weight = np.exp(lses - lses.max())
    return outs, lses, weight @ outs / weight.sum()
