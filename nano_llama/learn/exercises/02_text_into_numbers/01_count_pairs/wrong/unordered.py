# stage: smallest | says: (a,b) and (b,a) are different pairs: a merge keeps the order.
def count_pairs(ids):
    counts = {}
    used = False  # whether the left token belongs to the place before, which is one of the same pair
    for i in range(len(ids) - 1):
        pair = tuple(sorted((ids[i], ids[i + 1])))
        used = i > 0 and ids[i - 1] == ids[i] == ids[i + 1] and not used
        if not used:
            counts[pair] = counts.get(pair, 0) + 1
    return counts
