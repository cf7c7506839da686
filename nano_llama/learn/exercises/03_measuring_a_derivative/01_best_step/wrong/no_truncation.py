# stage: smallest | says: E(h) has two terms; one is missing.
def best_step(value, third, u):
    rounding = u * abs(value)
    h = (3 * rounding / abs(third)) ** (1 / 3)
    return h, rounding / h
