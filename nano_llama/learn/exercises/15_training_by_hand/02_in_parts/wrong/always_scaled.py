# stage: smallest | says: A gradient below the limit stays as it is; it was stretched to the limit.
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
    scale = limit / max(norm, 1e-300)
    return loss / max(counted, 1), {name: scale * grad for name, grad in mean.items()}, norm
