# stage: smallest | says: In "aaa" the left two are merged: places are taken from left to right.
from itertools import pairwise


def encode(data, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ids = list(data)
    while True:
        known = [ranks[pair] for pair in pairwise(ids) if pair in ranks]
        if not known:
            return ids
        ids = merged(ids, merges[min(known)], 256 + min(known))


def merged(ids, pair, token):
    result, i = [], len(ids) - 1
    while i >= 0:
        if i > 0 and (ids[i - 1], ids[i]) == pair:
            result.append(token)
            i -= 2
        else:
            result.append(ids[i])
            i -= 1
    return result[::-1]
