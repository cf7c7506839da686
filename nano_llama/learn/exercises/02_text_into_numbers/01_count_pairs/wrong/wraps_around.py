# stage: smallest | says: The last token and the first are not neighbours.
def count_pairs(ids):
    counts = {}
    used = False  # whether the left token belongs to the place before, which is one of the same pair
    n = len(ids)
    for i in range(n):
        pair = (ids[i], ids[(i + 1) % n])
        used = i > 0 and ids[i - 1] == ids[i] == ids[(i + 1) % n] and not used
        if not used:
            counts[pair] = counts.get(pair, 0) + 1
    return counts
