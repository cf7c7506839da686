# stage: smallest | says: A run of equal tokens was counted as one place; a run of n holds n // 2.
def count_pairs(ids):
    counts = {}
    used = False  # whether the left token belongs to the place before, which is one of the same pair
    for i in range(len(ids) - 1):
        pair = (ids[i], ids[i + 1])
        used = i > 0 and ids[i - 1] == ids[i] == ids[i + 1]
        if not used:
            counts[pair] = counts.get(pair, 0) + 1
    return counts
