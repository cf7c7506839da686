# stage: smallest | says: Sums in another order differ in the last bit: compare within a tolerance.
import numpy as np


def check_evaluate(evaluate):
    batches = [np.array([0.1, 0.2]), np.array([0.3, 0.7, 0.4]), np.array([0.6])]
    found = evaluate(batches)
    assert found == 2.3 / 6, f"{found} for 21 / 6"
