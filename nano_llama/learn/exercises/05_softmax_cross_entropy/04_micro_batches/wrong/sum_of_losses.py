# stage: smallest | says: This is the sum over all targets; it is to be divided by their number.
def combine(losses, grads, counts):
    weights = counts
    loss = float((weights * losses).sum())
    return loss, {name: sum(w * g[name] for w, g in zip(weights, grads, strict=True)) for name in grads[0]}
