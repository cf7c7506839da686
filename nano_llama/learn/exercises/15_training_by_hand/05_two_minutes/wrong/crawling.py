# stage: edge | says: With so small a rate nothing is learned in the time that there is: a matrix of this size bears a few thousandths.
import math

import numpy as np


def learning_rate(progress, peak, warmup):
    if progress < warmup:
        return peak * progress / warmup
    return peak * (1 - min(progress, 1.0)) / (1 - warmup)


def clip(grads, limit):
    norm = math.sqrt(sum(float(np.sum(grad**2)) for grad in grads.values()))
    scale = limit / max(norm, limit)
    return {name: scale * grad for name, grad in grads.items()}, norm


def adam(params, grads, state, lr):
    t = state["steps"] = state.get("steps", 0) + 1
    for name, grad in grads.items():
        m, v = state.get(name, (0, 0))
        m, v = 0.9 * m + 0.1 * grad, 0.99 * v + 0.01 * grad**2
        state[name] = m, v
        params[name] -= lr * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
    return t


def train(model, batches, seconds, clock):
    start = now = clock()
    longest, state, losses = 0.0, {}, []
    while now + longest - start < seconds:
        loss, grads = model.loss_and_grads(*next(batches))
        grads, norm = clip(grads, 1.0)
        if math.isfinite(loss) and math.isfinite(norm):
            adam(model.params, grads, state, learning_rate((now - start) / seconds, 3e-6, 0.05))
            losses.append(loss)
        before, now = now, clock()
        longest = max(longest, now - before)
    return losses
