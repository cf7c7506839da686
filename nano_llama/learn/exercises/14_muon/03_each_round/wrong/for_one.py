# stage: smallest | says: Was it derived for u = 1? The upper end is a variable.
def cubics(l, u, rounds):
    pairs = []
    for _ in range(rounds):
        q = l * l + l + 1
        b = -2 / (l * (l + 1) + 2 * (q / 3) ** 1.5)
        pairs.append((-b * q, b))
        l = -b * l * u * (l + u)
        u = 2 - l
    return pairs
