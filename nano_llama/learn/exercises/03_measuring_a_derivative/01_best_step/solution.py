def best_step(value, third, u):
    rounding = u * abs(value)
    h = (3 * rounding / abs(third)) ** (1 / 3)
    return h, h * h / 6 * abs(third) + rounding / h
