# stage: smallest | says: The fraction is upside down: the more accurate the values, the smaller h may be.
def best_step(value, third, u):
    rounding = u * abs(value)
    h = (abs(third) / (3 * rounding)) ** (1 / 3)
    return h, h * h / 6 * abs(third) + rounding / h
