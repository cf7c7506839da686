# stage: smallest | says: A square root belongs to h against 1/h; here h^2 stands against 1/h.
def best_step(value, third, u):
    rounding = u * abs(value)
    h = (3 * rounding / abs(third)) ** (1 / 2)
    return h, h * h / 6 * abs(third) + rounding / h
