# stage: smallest | says: A place of another pair may begin at the second token of this one: (a,b) and (b,c) both count in "abc".
def count_pairs(ids):
    counts = {}
    for i in range(0, len(ids) - 1, 2):
        pair = (ids[i], ids[i + 1])
        counts[pair] = counts.get(pair, 0) + 1
    return counts
