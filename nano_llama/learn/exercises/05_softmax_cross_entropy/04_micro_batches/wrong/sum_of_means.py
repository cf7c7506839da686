# stage: smallest | says: The parts' means were added up.
def combine(losses, grads, counts):
    weights = counts * 0 + 1
    loss = float((weights * losses).sum())
    return loss, {name: sum(w * g[name] for w, g in zip(weights, grads, strict=True)) for name in grads[0]}
