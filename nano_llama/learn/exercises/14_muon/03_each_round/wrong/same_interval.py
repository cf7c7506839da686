# stage: smallest | says: The first round is right. The next one begins where its results lie, in [1 - e, 1 + e].
def cubics(l, u, rounds):
    pairs = []
    for _ in range(rounds):
        q = l * l + l * u + u * u
        b = -2 / (l * u * (l + u) + 2 * (q / 3) ** 1.5)
        pairs.append((-b * q, b))
    return pairs
