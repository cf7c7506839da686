def best_step(value, third, u):
    """value = L(x), third = L'''(x), u: relative error of L   -> h, E(h)"""
    ...
    # return h, error
