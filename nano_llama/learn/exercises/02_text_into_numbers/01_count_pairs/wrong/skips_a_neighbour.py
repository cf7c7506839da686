# stage: smallest | says: Behind a place of (a,a) the next pair was skipped; only another place of (a,a) overlaps it.
def count_pairs(ids):
    counts, i = {}, 0
    while i + 1 < len(ids):
        pair = (ids[i], ids[i + 1])
        counts[pair] = counts.get(pair, 0) + 1
        i += 2 if pair[0] == pair[1] else 1
    return counts
