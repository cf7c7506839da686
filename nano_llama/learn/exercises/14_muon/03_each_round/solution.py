def cubics(l, u, rounds):
    pairs = []
    for _ in range(rounds):
        q = l * l + l * u + u * u
        b = -2 / (l * u * (l + u) + 2 * (q / 3) ** 1.5)
        pairs.append((-b * q, b))
        l = -b * l * u * (l + u)
        u = 2 - l
    return pairs
