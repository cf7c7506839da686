# stage: smallest | says: That is the best step of the chapter's five points; these are two, with another E(h).
def best_step(value, third, u):
    h = (45 / 4 * u * abs(value) / abs(third)) ** (1 / 5)
    return h, h * h / 6 * abs(third) + u * abs(value) / h
