# stage: smallest | says: Right, but a tall stack should be transposed: its products are larger than they need be.
import numpy as np


def orthogonalize_stack(stack, coefficients):
    tall = False
    x = stack.mT if tall else stack
    norms = np.sqrt(np.sum(x * x, axis=(1, 2), keepdims=True))
    x = np.divide(x, norms, out=np.zeros_like(x), where=norms > 0)
    for a, b, c in coefficients:
        gram = x @ x.mT
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.mT if tall else x
