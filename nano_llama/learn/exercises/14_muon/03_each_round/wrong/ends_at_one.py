# stage: smallest | says: The error at the upper end is to be as large as the others, not zero.
def cubics(l, u, rounds):
    pairs = []
    for _ in range(rounds):
        b = -1 / (2 * u**3)
        a = 1 / u - b * u**2
        pairs.append((a, b))
        l, u = a * l + b * l**3, 1.0
    return pairs
