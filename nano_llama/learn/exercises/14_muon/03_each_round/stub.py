def cubics(l, u, rounds):
    """l, u: the interval of the singular values   rounds: how many   -> [(a, b), ...], a pair for each round"""
    ...
    # return pairs
