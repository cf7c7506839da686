# stage: smallest | says: The two terms were set equal; E is smallest where their slopes cancel, and there the first term is half of the second.
def best_step(value, third, u):
    rounding = u * abs(value)
    h = (6 * rounding / abs(third)) ** (1 / 3)
    return h, h * h / 6 * abs(third) + rounding / h
