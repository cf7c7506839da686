import numpy as np


def check_evaluate(evaluate):
    batches = [np.array([4.0, 1.0]), np.array([2.0, 2.0, 7.0]), np.array([5.0])]
    found = evaluate(batches)
    assert abs(found - 21 / 6) < 1e-9, f"{found} for 21 / 6"
