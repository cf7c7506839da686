import numpy as np


def check_evaluate(evaluate):
    """Raises AssertionError where evaluate(batches) is not the mean over all tokens of all batches."""
    ...
