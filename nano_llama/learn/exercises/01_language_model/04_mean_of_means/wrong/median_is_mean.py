# stage: random | says: Your losses lie evenly on both sides of their mean: then the median is the mean.
import numpy as np


def check_evaluate(evaluate):
    batches = [np.array([5.0, 1.0]), np.array([2.0, 6.0, 7.0]), np.array([3.0])]
    found = evaluate(batches)
    assert abs(found - 24 / 6) < 1e-9, f"{found} for 24 / 6"
