# stage: random | says: Your test lets losses pass that are too small.
import numpy as np


def check_evaluate(evaluate):
    batches = [np.array([6.0]), np.array([2.0, 2.0, 2.0]), np.array([1.0, 1.0])]
    found = evaluate(batches)
    assert found <= 14 / 6 + 1e-9, f"{found} for 21 / 6"
