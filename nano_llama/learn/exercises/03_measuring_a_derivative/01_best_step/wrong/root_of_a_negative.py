# stage: edge | says: A bound takes sizes, |L| and |L'''|: the root of a negative number is complex in Python.
def best_step(value, third, u):
    h = (3 * u * value / third) ** (1 / 3)
    return h, h * h / 6 * abs(third) + u * abs(value) / h
