import numpy as np


def diagnose(training, validation, V, floor, epoch):
    """training: (steps,) nats   validation: (evaluations,) nats   V: tokens   floor: nats   epoch: steps of an epoch

    -> "healthy", "start", "rate", "leak", "memorized" or "order"
    """
    ...
    # return word
