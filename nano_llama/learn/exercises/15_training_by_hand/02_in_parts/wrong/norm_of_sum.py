# stage: smallest | says: The norm is that of the sum over targets; clip the mean.
import numpy as np


def gather(gradient, parts, limit):
    loss, total, counted = 0.0, {}, 0
    for part in parts:
        part_loss, grads, count = gradient(part)
        loss += count * part_loss
        counted += count
        for name, grad in grads.items():
            total[name] = total.get(name, 0) + count * grad
    mean = {name: grad / max(counted, 1) for name, grad in total.items()}
    norm = float(np.sqrt(sum(np.sum(grad**2) for grad in total.values())))
    scale = limit / max(norm, limit)
    return loss / max(counted, 1), {name: scale * grad for name, grad in mean.items()}, norm
