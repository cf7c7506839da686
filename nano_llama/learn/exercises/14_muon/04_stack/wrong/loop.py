# stage: smallest | says: This is right, and a loop over the matrices: let a product take all of them at once.
import numpy as np


def orthogonalize_stack(stack, coefficients):
    results = []
    for x in stack:
        norm = np.sqrt(np.sum(x * x))
        x = x / norm if norm > 0 else x
        tall = x.shape[0] > x.shape[1]
        x = x.T if tall else x
        for a, b, c in coefficients:
            gram = x @ x.T
            x = a * x + (b * gram + c * (gram @ gram)) @ x
        results.append(x.T if tall else x)
    return np.array(results)
