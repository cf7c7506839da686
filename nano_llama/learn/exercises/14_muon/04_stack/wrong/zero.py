# stage: edge | says: A matrix of zeros was divided by its norm.
import numpy as np


def orthogonalize_stack(stack, coefficients):
    tall = stack.shape[1] > stack.shape[2]
    x = stack.mT if tall else stack
    norms = np.sqrt(np.sum(x * x, axis=(1, 2), keepdims=True))
    x = x / norms
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
