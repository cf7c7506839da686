# stage: smallest | says: The loss is weighted by the counts, the gradients are not: they are derivatives of the same mean.
def combine(losses, grads, counts):
    weights = counts / max(counts.sum(), 1)
    loss = float((weights * losses).sum())
    return loss, {name: sum(g[name] for g in grads) / len(grads) for name in grads[0]}
