# stage: smallest | says: The mean of the parts' means: a target of a short part weighs more than one of a long part.
def combine(losses, grads, counts):
    weights = counts * 0 + 1 / len(counts)
    loss = float((weights * losses).sum())
    return loss, {name: sum(w * g[name] for w, g in zip(weights, grads, strict=True)) for name in grads[0]}
