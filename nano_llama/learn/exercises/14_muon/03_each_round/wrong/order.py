# stage: smallest | says: u of the next interval comes from its own l; here l was changed before it had been used to the end, or u before l.
def cubics(l, u, rounds):
    pairs = []
    for _ in range(rounds):
        q = l * l + l * u + u * u
        b = -2 / (l * u * (l + u) + 2 * (q / 3) ** 1.5)
        pairs.append((-b * q, b))
        u = 2 + b * l * u * (l + u)
        l = -b * l * u * (l + u)
    return pairs
