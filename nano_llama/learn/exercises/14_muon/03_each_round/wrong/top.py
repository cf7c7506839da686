# stage: smallest | says: p at its top is 2/3 of a times s: of a s + b s^3, with b s^2 = -a / 3.
def cubics(l, u, rounds):
    pairs = []
    for _ in range(rounds):
        q = l * l + l * u + u * u
        b = -2 / (l * u * (l + u) + 3 * (q / 3) ** 1.5)
        pairs.append((-b * q, b))
        l = -b * l * u * (l + u)
        u = 2 - l
    return pairs
