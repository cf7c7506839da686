# stage: random | says: Your first token's loss is the mean itself: leaving it out changes nothing.
import numpy as np


def check_evaluate(evaluate):
    batches = [np.array([3.4, 1.0]), np.array([2.0, 2.0, 7.0]), np.array([5.0])]
    found = evaluate(batches)
    assert abs(found - 20.4 / 6) < 1e-9, f"{found} for 20.4 / 6"
