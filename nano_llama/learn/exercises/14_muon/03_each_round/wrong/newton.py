# stage: smallest | says: This is the same cubic in each round; the best one for an interval is steeper at zero.
def cubics(l, u, rounds):
    return [(1.5, -0.5)] * rounds
