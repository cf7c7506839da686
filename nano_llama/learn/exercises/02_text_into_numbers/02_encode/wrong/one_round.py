# stage: smallest | says: It stops after one merge; the tokens it made can be merged again.
from itertools import pairwise


def encode(data, merges):
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ids = list(data)
    for _ in range(1):
        known = [ranks[pair] for pair in pairwise(ids) if pair in ranks]
        if not known:
            return ids
        ids = merged(ids, merges[min(known)], 256 + min(known))
    return ids


def merged(ids, pair, token):
    result, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            result.append(token)
            i += 2
        else:
            result.append(ids[i])
            i += 1
    return result
