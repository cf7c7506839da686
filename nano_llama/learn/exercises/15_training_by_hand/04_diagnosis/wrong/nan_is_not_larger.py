# stage: edge | says: NaN is larger than nothing: ask whether all losses are finite.
import numpy as np


def climb(losses):
    """From the lowest point to the highest behind it."""
    return losses[losses.argmin() :].max() - losses.min()


def diagnose(training, validation, V, floor, epoch):
    epochs = training.reshape(-1, epoch)
    means = epochs.mean(axis=1)
    beyond = {  # by how much each of these passes what is usual
        "healthy": 0.0,
        "start": training[0] - np.log(V) - 0.7,
        "rate": climb(means) - 0.3,
        "leak": floor - validation.min(),
        "memorized": climb(validation) - climb(means) - 0.15,
        "order": np.corrcoef(epochs)[-1, -2] - 0.5,
    }
    return max(beyond, key=beyond.get)
