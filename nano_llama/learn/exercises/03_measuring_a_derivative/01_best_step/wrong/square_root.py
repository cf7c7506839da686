# stage: smallest | says: h is a square root where two terms are made equal in a two-sided formula as if the first were linear in h: here h^2 meets 1/h, which gives a cube root.
def best_step(value, third, u):
    rounding = u * abs(value)
    h = (3 * rounding / abs(third)) ** (1 / 2)
    return h, h * h / 6 * abs(third) + rounding / h
