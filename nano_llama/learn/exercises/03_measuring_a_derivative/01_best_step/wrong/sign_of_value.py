# stage: edge | says: A bound takes sizes: |L| and |L'''|, whatever their sign.
def best_step(value, third, u):
    rounding = u * value
    h = (3 * rounding / abs(third)) ** (1 / 3) if value > 0 else 1.0
    return h, h * h / 6 * abs(third) + rounding / h
