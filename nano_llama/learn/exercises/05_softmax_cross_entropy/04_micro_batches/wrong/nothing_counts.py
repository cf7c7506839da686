# stage: edge | says: Where nothing counts, this is 0/0.
def combine(losses, grads, counts):
    weights = counts / counts.sum()
    loss = float((weights * losses).sum())
    return loss, {name: sum(w * g[name] for w, g in zip(weights, grads, strict=True)) for name in grads[0]}
