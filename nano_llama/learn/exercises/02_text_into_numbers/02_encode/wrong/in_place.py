# stage: smallest | says: A merge uses up two tokens; here a third one is swallowed.
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
    result, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            result.append(token)
            i += 3
        else:
            result.append(ids[i])
            i += 1
    return result
