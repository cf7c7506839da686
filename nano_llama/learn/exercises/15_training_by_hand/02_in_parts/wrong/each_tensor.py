# stage: smallest | says: Each tensor was clipped by its own norm: that turns the gradient. There is one norm over all of them.
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
    norm = float(np.sqrt(sum(np.sum(grad**2) for grad in mean.values())))
    return (
        loss / max(counted, 1),
        {name: grad * limit / max(float(np.linalg.norm(grad)), limit) for name, grad in mean.items()},
        norm,
    )
